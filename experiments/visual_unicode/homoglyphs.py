# SPDX-License-Identifier: Apache-2.0
"""Look-alike letters in the context: who reads on, visual, trained or byte-level rows?

Some letters of a text are replaced by look-alikes; the model reads the replaced text and is asked,
wherever a token of the clean text begins, for that token. So what is asked for is the same text,
and bits are counted over its bytes; only the context differs. A token of the clean text is left out
of both scores where no token of the replaced text begins at the same character.
"""

import collections
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import loss, models, text
from lib.data import pipeline, sources
from lib.errors import InputError
from lib.report.results import Row, mean_and_sem, name
from lib.tokenizers.base import Tokenizer

CAPTION = (
  'Latin letters of the context become letters that the font draws alike, each with probability '
  '`rate`; the clean text is asked for. Bits are per byte of the clean text; `extra` is the '
  'attacked less the clean score of the same tokens, mean ± standard error over seeds. Rows of '
  'look-alikes are trained only where the training text has them. An attack also cuts n-grams into '
  'characters.'
)
SUMMARY = ('', ('clean_bits_per_byte', 'attacked_bits_per_byte', 'extra_bits_per_byte'))


def check(config: ConfigDict) -> None:
  """Raises InputError for rates that are none, and whatever `loss` cannot have."""
  loss.check(config)
  for arm in config.homoglyphs.arms:
    if arm not in models.ARMS:
      raise InputError(f'homoglyphs.arms: {arm!r} is not one of {", ".join(models.ARMS)}.')
  for rate in config.homoglyphs.rates:
    if not 0 < rate <= 1:
      raise InputError(f'homoglyphs.rates must lie above 0 and be at most 1; got {rate}.')


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Scores the arms of `loss`, and a model over bytes, on clean and on attacked contexts."""
  options = config.homoglyphs
  alike = text.confusable(config.glyphs.font, options.tolerance)
  rows = _found(config, alike)
  clean = passages(config, options.texts, options.chars)
  arms = [(arm, None) for arm in options.arms] + [(arm, 'bytes') for arm in options.byte_arms]
  for arm, kind in arms:
    tokenizer = text.open_text(config, kind).tokenizer
    trained = loss.fit(config, run, arm, kind)
    nats = jax.jit(trained[0].model.apply)
    score = lambda one, batch, nats=nats: float(
      (np.asarray(nats(one.variables, batch, None)) * (batch['bytes'] > 0)).sum()
    )
    for rate in options.rates:
      attacked = [attack(one, alike, rate, seed) for seed, one in enumerate(clean)]
      pairs = [
        aligned(tokenizer, *pair, config.loss.length) for pair in zip(clean, attacked, strict=True)
      ]
      row = name(arm=arm, tokens=kind or config.tokenizer.kind, rate=rate)
      rows += _scores(row, [functools.partial(score, one) for one in trained], pairs, clean)
  return rows


def _found(config: ConfigDict, alike: Mapping[str, str]) -> list[Row]:
  """How many letters can be imitated, and whether the training text has what imitates them."""
  put = lambda column, value, note='': Row(
    'homoglyphs', 'letters=latin', column, float(value), note=note
  )
  examples = ', '.join(f'{letter} U+{ord(others[0]):04X}' for letter, others in alike.items())
  whole = sources.sample(sources.open_source(config.data.source, 'train'), 2**26)
  counts = collections.Counter(b''.join(whole).decode('utf-8', 'replace'))
  look_alikes = set(''.join(alike.values()))
  return [
    put('letters_with_look_alikes', len(alike), f'such as {examples[:60]} …'),
    put('look_alikes', len(look_alikes)),
    put('look_alikes_in_training_text', sum(counts[one] for one in look_alikes), 'occurrences'),
    put('characters_of_training_text', counts.total()),
  ]


def passages(config: ConfigDict, count: int, chars: int) -> list[str]:
  """Stretches of `chars` characters of test documents, at most 8 of each."""
  documents = sources.open_source(config.data.source, 'test')
  found: list[str] = []
  for index in np.random.default_rng(0).permutation(len(documents)):
    whole = documents[int(index)].decode('utf-8', 'replace')
    parts = [whole[i : i + chars] for i in range(0, len(whole) - chars + 1, chars)]
    found += parts[:: max(1, len(parts) // 8)][:8]
    if len(found) >= count:
      return found[:count]
  if not found:
    raise InputError(f'no test document has {chars} characters: choose fewer homoglyphs.chars.')
  return found


def attack(clean: str, alike: Mapping[str, str], rate: float, seed: int) -> str:
  """Replaces each letter that has look-alikes, with probability `rate`, by one of them."""
  rng = np.random.default_rng(seed)
  return ''.join(
    alike[character][rng.integers(len(alike[character]))]
    if rng.random() < rate and character in alike
    else character
    for character in clean
  )


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
  # A token inside a character begins no character: it stands just before the next one.
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
  scores: Sequence[Callable[[Mapping[str, np.ndarray]], float]],
  pairs: Sequence[tuple],
  clean: Sequence[str],
) -> list[Row]:
  """Clean, attacked and extra bits per byte; `scores` give each seed's nats of a batch."""
  batches = [{k: np.stack([one[k] for one in side]) for k in side[0]} for side in zip(*pairs)]
  covered = batches[0]['bytes'].sum()
  values = [[score(batch) / covered / np.log(2) for batch in batches] for score in scores]
  before, after = zip(*values)
  put = lambda column, numbers, note='': Row(
    'homoglyphs', row, column, *mean_and_sem(numbers), unit='bits/byte', note=note
  )
  share = float(covered / sum(len(one.encode()) for one in clean))
  return [
    put('clean_bits_per_byte', before, f'{len(clean)} passages of test text'),
    put('attacked_bits_per_byte', after),
    put('extra_bits_per_byte', np.subtract(after, before).tolist()),
    Row('homoglyphs', row, 'scored_share', share, unit='ratio', note='of the clean bytes'),
  ]
