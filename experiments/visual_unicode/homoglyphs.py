# SPDX-License-Identifier: Apache-2.0
"""Look-alike letters in the context, under visual, trained and byte-level rows.

Some letters of a text are replaced by look-alikes; the model reads the replaced text and
predicts each token of the clean text at its place (`lib.glyphs.look_alikes.aligned`). So the
targets are the same text, and bits are counted over its bytes; only the context differs.
"""

import collections
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import recipe
from experiments.recipe import Pictures, Run
from experiments.visual_unicode import loss, models, text
from lib import stats
from lib.data import excerpts, sources, token_excerpts
from lib.data.token_excerpts import HeldOut
from lib.glyphs import look_alikes
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, Rows, select
from lib.tokenizers.base import Tokenizer

DIFFERENCE = 'above 0: loses more than the reference; paired by seed and document'
Lists = Mapping[str, Mapping[str, str]]


def check(config: ConfigDict) -> None:
  """Raises InputError for invalid rates, and as `loss` does."""
  loss.check(config)
  for field in ('arms', 'byte_arms'):
    models.check_arms(config.homoglyphs[field], f'homoglyphs.{field}')
  models.check_arms([config.homoglyphs.reference], 'homoglyphs.reference')
  passages(config, 1)


def measure(config: ConfigDict, run: Run) -> list[Row]:
  """Scores the arms of `loss`, and a model over bytes, on clean and on attacked contexts."""
  options, rows = config.homoglyphs, text.rows(config, 'homoglyphs')
  lists = text.alike(config.glyphs.font, options.tolerance)
  _add_lists(rows, config, lists)
  clean = passages(config)
  whole = sum(len(one.encode()) for one in clean.texts)
  arms = [(arm, '') for arm in options.arms] + [(arm, 'bytes') for arm in options.byte_arms]
  extra: dict[tuple, dict[str, np.ndarray]] = {}
  for arm, kind in arms:
    tokenizer = text.open_text(config, kind).tokenizer
    trained = loss.train(config, run, arm, kind)
    for listed, alike in lists.items():
      for rate in options.rates:
        attacked = [
          look_alikes.attack(one, alike, rate, seed) for seed, one in enumerate(clean.texts)
        ]
        sides = aligned_text(tokenizer, clean, attacked, config.loss.length)
        before, after = (
          side.bits([side.sums(one.model.row_loss) for one in trained]) for side in sides
        )
        case = {'list': listed, 'tokens': kind or config.tokenizer.kind, 'rate': rate}
        for column, bits in (
          ('clean_bits_per_byte', before),
          ('attacked_bits_per_byte', after),
          ('extra_bits_per_byte', after - before),
        ):
          rows.add(case | {'arm': arm}, column, stats.crossed(bits), 'bits/byte')
        share = sides[0].bytes.sum() / whole
        rows.add(case | {'arm': arm}, 'scored_share', share, 'ratio', 'of the clean bytes')
        extra.setdefault((*case.items(), kind), {})[arm] = after - before
  for (*of_case, _), by_arm in extra.items():
    for where, found in models.differences(by_arm, [options.reference], 'seeds×documents'):
      where = dict(of_case) | where
      rows.add(where, 'difference_extra_bits_per_byte', found, 'bits/byte', DIFFERENCE)
  return rows


def _add_lists(rows: Rows, config: ConfigDict, lists: Lists) -> None:
  """The number of letters with look-alikes, and whether the training text has these look-alikes."""
  whole = sources.sample(sources.open_source(config.data.source, 'train'), 2**26)
  counts = collections.Counter(b''.join(whole).decode('utf-8', 'replace'))
  pairs = {
    listed: {(letter, one) for letter, others in alike.items() for one in others}
    for listed, alike in lists.items()
  }
  for listed, alike in lists.items():
    where, imitations = {'list': listed}, {one for _, one in pairs[listed]}
    examples = ', '.join(f'{letter} U+{ord(others[0]):04X}' for letter, others in alike.items())
    note = f'such as {examples[:60]} …'
    rows.add(where, 'letters_with_look_alikes', len(alike), 'letters', note)
    rows.add(where, 'look_alikes', len(imitations), 'characters')
    rows.add(where, 'pairs', len(pairs[listed]), 'pairs', 'of a letter and a look-alike')
    rows.add(where, 'pairs_alike_in_pixels', len(pairs[listed] & pairs['pixels']), 'pairs')
    occurrences = sum(counts[one] for one in imitations)
    rows.add(where, 'look_alikes_in_training_text', occurrences, 'characters', 'occurrences')
    rows.add(where, 'characters_of_training_text', counts.total(), 'characters')


def passages(config: ConfigDict, count: int = 0) -> excerpts.Excerpts:
  """Stretches of `chars` characters of test documents: `texts` of them, or `count`.

  Raises:
    InputError: no document is long enough.
  """
  options = config.homoglyphs
  return excerpts.take(
    sources.open_source(config.data.source, 'test'),
    length=options.chars,
    count=count or options.texts,
    most=text.EACH,
    prepare=lambda document: document.decode('utf-8', 'replace'),
    name=f'{config.data.source} (test, in characters)',
  )


def aligned_text(
  tokenizer: Tokenizer, clean: excerpts.Excerpts, attacked: Sequence[str], length: int
) -> list[HeldOut]:
  """The passages with clean and with attacked contexts, both with the same targets."""
  pairs = [
    look_alikes.aligned(tokenizer, one, other, length)
    for one, other in zip(clean.texts, attacked, strict=True)
  ]
  return [
    token_excerpts.of_rows(
      {field: np.stack([one[field] for one in side]) for field in side[0]},
      len(side),
      clean.documents,
    )
    for side in zip(*pairs)
  ]


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """The cost of an attacked context by rate, a panel for each list of look-alikes."""
  series: dict[str, dict[str, list[tuple[float, Row]]]] = {}
  for row in select(rows, 'homoglyphs', 'extra_bits_per_byte'):
    at = row.where
    label = models.ARMS[at['arm']].label + (', bytes' if at['tokens'] == 'bytes' else '')
    nothing = Row('homoglyphs', {'rate': 0}, 'extra_bits_per_byte', 0.0)
    points = series.setdefault(at['list'], {}).setdefault(label, [(0.0, nothing)])
    points.append((float(at['rate']), row))
  titles = {'pixels': 'Letters that the font draws alike', 'confusables': 'Unicode’s look-alikes'}
  axes = 'share of the letters that are replaced', 'extra bits per byte'
  panels = [
    plots.row_curves(titles.get(listed, listed), *axes, points) for listed, points in series.items()
  ]
  caption = (
    'What look-alikes in the context cost models over several kinds of rows. Bars: one standard '
    'error over seeds and documents.'
  )
  return {'homoglyphs.png': Picture(caption, panels)}


TABLE = recipe.Table(
  'homoglyphs',
  measure,
  caption='Latin letters of the context become look-alikes, each with probability `rate`; the '
  'clean text is the target. `list=pixels` has the letters that the font draws alike: it is made '
  'from the very bitmaps that are the glyph rows, many of them equal, so that the cost under '
  'frozen glyphs is a lower bound, that of cutting n-grams into characters. `list=confusables` is '
  'Unicode’s list, which no font defined. Bits are per byte of the clean text; `extra` is the '
  'attacked less the clean score of the same tokens. Rows of look-alikes are trained only where '
  'the training text has them.',
  shown=('clean_bits_per_byte', 'extra_bits_per_byte', 'difference_extra_bits_per_byte'),
  check=check,
  pictures=pictures,
  sources=recipe.text_of,
)
