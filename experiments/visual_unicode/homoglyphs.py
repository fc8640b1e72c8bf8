# SPDX-License-Identifier: Apache-2.0
"""Look-alike letters in the context: who reads on, visual, trained or byte-level rows?

Some letters of a text are replaced by look-alikes; the model reads the replaced text and is asked,
wherever a token of the clean text begins, for that token. So what is asked for is the same text,
and bits are counted over its bytes; only the context differs. A token of the clean text is left out
of both scores where no token of the replaced text begins at the same character.
"""

import collections
import functools
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import loss, models, scores, text
from lib import stats
from lib.data import excerpts, pipeline, sources
from lib.errors import InputError
from lib.report.results import Row, name
from lib.tokenizers.base import Tokenizer

CAPTION = (
  'Latin letters of the context become look-alikes, each with probability `rate`; the clean text '
  'is the target. `list=pixels` has the letters that the font draws alike: it is made from the '
  'very bitmaps that are the glyph rows, many of them equal, so that the cost under frozen glyphs '
  'is a lower bound, that of cutting n-grams into characters. `list=confusables` is Unicode’s '
  'list, which no font defined. Bits are per byte of the clean text; `extra` is the attacked less '
  'the clean score of the same tokens. Rows of look-alikes are trained only where the training '
  'text has them.'
)
SUMMARY = ('', ('clean_bits_per_byte', 'extra_bits_per_byte', 'difference_extra_bits_per_byte'))


def check(config: ConfigDict) -> None:
  """Raises InputError for rates that are none, and whatever `loss` cannot have."""
  loss.check(config)
  for arm in config.homoglyphs.arms:
    if arm not in models.ARMS:
      raise InputError(f'homoglyphs.arms: {arm!r} is not one of {", ".join(models.ARMS)}.')
  for rate in config.homoglyphs.rates:
    if not 0 < rate <= 1:
      raise InputError(f'homoglyphs.rates must lie above 0 and be at most 1; got {rate}.')
  passages(config)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Scores the arms of `loss`, and a model over bytes, on clean and on attacked contexts."""
  options = config.homoglyphs
  lists = text.alike(config.glyphs.font, options.tolerance)
  rows = _found(config, lists)
  clean = passages(config)
  arms = [(arm, None) for arm in options.arms] + [(arm, 'bytes') for arm in options.byte_arms]
  extra: dict[tuple, dict[str, np.ndarray]] = {}
  for arm, kind in arms:
    tokenizer = text.open_text(config, kind).tokenizer
    trained = loss.fit(config, run, arm, kind)
    score = scores.row_nats(functools.partial(_asked_nats, trained[0].model))
    for listed, alike in lists.items():
      for rate in options.rates:
        attacked = [attack(one, alike, rate, seed) for seed, one in enumerate(clean.texts)]
        both = aligned_text(tokenizer, clean, attacked, config.loss.length)
        nats = [[score(one.variables, side) for one in trained] for side in both]
        case = name(list=listed, tokens=kind or config.tokenizer.kind, rate=rate)
        before, after = (scores.bits_by_document(one, both[0]) for one in nats)
        rows += _scores(f'{case},{name(arm=arm)}', before, after, both[0], clean)
        extra.setdefault((case, kind), {})[arm] = after - before
  reference = options.reference
  for (case, _), by_arm in extra.items():
    if reference in by_arm:
      for arm, found in stats.arms(by_arm, reference, 'seeds×documents').items():
        rows.append(
          Row.of('homoglyphs', f'{case},{name(arm=arm, against=reference)}',
                 'difference_extra_bits_per_byte', found, unit='bits/byte',
                 note='above 0: loses more than the reference; paired by seed and document')
        )  # fmt: skip
  return rows


def _asked_nats(model, variables, batch):
  """Nats [B, T] of the targets that count."""
  return jnp.where(batch['bytes'] > 0, model.apply(variables, batch, None), 0.0)


def _found(config: ConfigDict, lists: Mapping[str, Mapping[str, str]]) -> list[Row]:
  """How many letters can be imitated, and whether the training text has what imitates them."""
  whole = sources.sample(sources.open_source(config.data.source, 'train'), 2**26)
  counts = collections.Counter(b''.join(whole).decode('utf-8', 'replace'))
  by_pixels = {(letter, one) for letter, others in lists['pixels'].items() for one in others}
  rows = []
  for listed, alike in lists.items():
    put = lambda column, value, note='', listed=listed: rows.append(
      Row('homoglyphs', name(list=listed), column, float(value), note=note)
    )
    examples = ', '.join(f'{letter} U+{ord(others[0]):04X}' for letter, others in alike.items())
    pairs = {(letter, one) for letter, others in alike.items() for one in others}
    look_alikes = {one for _, one in pairs}
    put('letters_with_look_alikes', len(alike), f'such as {examples[:60]} …')
    put('look_alikes', len(look_alikes))
    put('pairs', len(pairs), 'of a letter and a look-alike')
    put('pairs_alike_in_pixels', len(pairs & by_pixels))
    put('look_alikes_in_training_text', sum(counts[one] for one in look_alikes), 'occurrences')
    put('characters_of_training_text', counts.total())
  return rows


def passages(config: ConfigDict) -> excerpts.Excerpts:
  """Stretches of `chars` characters of test documents."""
  options = config.homoglyphs
  return excerpts.take(
    sources.open_source(config.data.source, 'test'),
    length=options.chars,
    count=options.texts,
    most=text.EACH,
    prepare=lambda document: document.decode('utf-8', 'replace'),
    name=f'{config.data.source} (test, in characters)',
  )


def attack(clean: str, alike: Mapping[str, str], rate: float, seed: int) -> str:
  """Replaces each letter that has look-alikes, with probability `rate`, by one of them."""
  rng = np.random.default_rng(seed)
  return ''.join(
    alike[character][rng.integers(len(alike[character]))]
    if rng.random() < rate and character in alike
    else character
    for character in clean
  )


def aligned_text(
  tokenizer: Tokenizer, clean: excerpts.Excerpts, attacked: Sequence[str], length: int
) -> tuple[text.HeldOut, text.HeldOut]:
  """The passages with clean and with attacked contexts, both with the same targets."""
  pairs = [
    aligned(tokenizer, one, other, length)
    for one, other in zip(clean.texts, attacked, strict=True)
  ]  # fmt: skip
  covered = np.array([one['bytes'].sum() for one, _ in pairs], np.float64)
  batches = [{field: np.stack([one[field] for one in side]) for field in side[0]}
             for side in zip(*pairs)]  # fmt: skip
  before, after = (text.HeldOut([batch], clean.documents, covered) for batch in batches)
  return before, after


def aligned(
  tokenizer: Tokenizer, clean: str, attacked: str, length: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Rows [length] that ask for the same clean tokens after the clean and the attacked context.

  `bytes` is above 0 where a target counts.
  """
  ids, begins = _tokens(tokenizer, clean)
  read, starts = _tokens(tokenizer, attacked)
  both = np.intersect1d(begins[:length], starts[:length])
  both = both[both == both.astype(int)]
  sought = ids[np.searchsorted(begins, both)]
  return tuple(
    _row(tokenizer, context, np.searchsorted(places, both), sought, length)
    for context, places in ((ids, begins), (read, starts))
  )  # type: ignore[return-value]


def _tokens(tokenizer: Tokenizer, whole: str) -> tuple[np.ndarray, np.ndarray]:
  """Ids [n], and the character with which each begins."""
  data = whole.encode()
  ids = tokenizer.encode(data)
  ends = np.cumsum(tokenizer.byte_lengths(ids))
  first_bytes = np.cumsum([0, *(len(character.encode()) for character in whole)])
  starts = np.concatenate([[0], ends[:-1]])
  character = np.searchsorted(first_bytes, starts)
  # A token inside a character begins no character: it comes just before the next one.
  return ids, np.where(first_bytes[character] == starts, character, character - 0.5)


def _row(
  tokenizer: Tokenizer, context: np.ndarray, places: np.ndarray, sought: np.ndarray, length: int
) -> dict[str, np.ndarray]:
  row = {field: np.zeros(length, np.int32) for field in pipeline.FIELDS}
  count = min(length, len(context))
  row['inputs'][:count] = np.concatenate([[tokenizer.vocab_size], context])[:count]
  row['segments'][:count] = 1
  row['positions'][:count] = np.arange(count)
  row['targets'][places] = sought
  row['bytes'][places] = tokenizer.byte_lengths(sought)
  return row


def _scores(
  row: str,
  before: np.ndarray,
  after: np.ndarray,
  held_out: text.HeldOut,
  clean: excerpts.Excerpts,
) -> list[Row]:
  """Clean, attacked and extra bits per byte from those of seeds and documents [S, D]."""
  put = lambda column, values: Row.of(
    'homoglyphs', row, column, stats.crossed(values), unit='bits/byte'
  )
  share = float(held_out.bytes.sum() / sum(len(one.encode()) for one in clean.texts))
  return [
    put('clean_bits_per_byte', before),
    put('attacked_bits_per_byte', after),
    put('extra_bits_per_byte', after - before),
    Row('homoglyphs', row, 'scored_share', share, unit='ratio', note='of the clean bytes'),
  ]
