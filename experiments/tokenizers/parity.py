# SPDX-License-Identifier: Apache-2.0
"""Table `parity`: BPE, and BPE that merges for the language that needs the most tokens so far."""

from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments.recipe import Pictures, Run, Table, naming
from experiments.tokenizers import compare
from lib import stats, tokenizers
from lib.data import categories
from lib.errors import InputError
from lib.evals import segmentation
from lib.evals.segmentation import Segmented
from lib.report import plots
from lib.report.results import Row, Rows, select
from lib.tokenizers.bpe import train_bpe
from lib.tokenizers.parity import train_parity

PLAIN, EVEN = 'bpe', 'parity'
HELD_OUT = 3  # every third line is held out


def check(config: ConfigDict) -> None:
  """Raises InputError for texts that are no folder of two or more languages with enough lines."""
  options = config.parity
  if options.texts:
    with naming('parity.texts'):
      categories.check(options.texts)
  if options.train_texts and not options.texts:
    raise InputError('parity.train_texts is of no use without parity.texts, the translations.')
  if options.train_texts:
    with naming('parity.train_texts'):
      _shared(options)
  if options.texts:
    with naming('parity.texts'):
      _lines(options)


def measure(config: ConfigDict, run: Run) -> Rows:
  """Both tokenizers on held-out lines of translations; no rows without texts."""
  options, rows = config.parity, Rows('parity')
  if not options.texts:
    return rows
  lines = _lines(options)
  parallel = {name: [b''.join(_part(one, held=False))] for name, one in lines.items()}
  held = {name: _part(one, held=True) for name, one in lines.items()}
  training: categories.Categories = parallel
  if options.train_texts:
    known = categories.open_categories(options.train_texts)
    training = {name: categories.take(known[name], options.train_bytes) for name in lines}
  every = [document for documents in training.values() for document in documents]
  made = {
    PLAIN: train_bpe(every, options.vocab_size),
    EVEN: train_parity(training, parallel, options.vocab_size),
  }
  sizes = [sum(map(len, one)) for one in lines.values()]
  found: dict[str, list[Segmented]] = {}
  for name, tokenizer in made.items():
    path = run.workdir / 'tokenizers' / f'parity-{name}'
    tokenizers.save(tokenizer, path)
    found[name] = [segmentation.segment(tokenizer, blocks) for blocks in held.values()]
    where = {'tokenizer': name}
    whole = segmentation.join(found[name])
    note = f'{whole.sizes.sum():,} bytes in {len(held)} languages; {tokenizer.vocab_size:,} ids'
    bytes_per_token = stats.ratio(whole.sizes, whole.tokens, over='lines')
    rows.add(where, 'bytes_per_token', bytes_per_token, 'bytes/token', f'{note}; rule words')
    for column, statistic, note in compare.PARITY:
      value = lambda weights, s=statistic, texts=found[name]: s(
        compare.costs(texts, weights, sizes)
      )
      strata = [one.sizes.size for one in found[name]]
      estimate = stats.bootstrap(value, strata, options.draws, over='lines')
      rows.add(
        where, column, estimate, '', f'{note}: tokens of a whole text, by its held-out lines'
      )
  _add_difference(rows, found, sizes, options.draws)
  return rows


def _add_difference(
  rows: Rows, found: Mapping[str, Sequence[Segmented]], sizes: Sequence[int], draws: int
) -> None:
  """Adds by how much parity lowers the Gini coefficient, on the same lines drawn again."""

  def less(weights: np.ndarray) -> float:
    even, plain = (
      segmentation.gini(compare.costs(found[name], weights, sizes)) for name in (EVEN, PLAIN)
    )
    return even - plain

  strata = [one.sizes.size for one in found[PLAIN]]
  estimate = stats.bootstrap(less, strata, draws, over='lines')
  rows.add({'tokenizer': EVEN}, 'gini_less_bpe', estimate, '', 'paired by line')


def _lines(options: ConfigDict) -> dict[str, list[bytes]]:
  """The lines of each language that is measured; raises InputError for fewer than HELD_OUT."""
  known = categories.open_categories(options.texts)
  names = [*known] if not options.train_texts else _shared(options)
  chosen = np.unique(np.linspace(0, len(names) - 1, options.languages, dtype=int))
  found = {names[i]: b''.join(known[names[i]]).splitlines(keepends=True) for i in chosen}
  for name, lines in found.items():
    if len(lines) < HELD_OUT:
      raise InputError(f'{name!r} has {len(lines)} lines; {HELD_OUT} or more are needed.')
  return found


def _part(lines: Sequence[bytes], *, held: bool) -> list[bytes]:
  """The lines that are held out, or the others, from which tokenizers are learned."""
  return [line for i, line in enumerate(lines) if (i % HELD_OUT == HELD_OUT - 1) == held]


def _shared(options: ConfigDict) -> list[str]:
  """The languages with translations and with text to train on."""
  one, other = (
    {path.stem for path in categories.check(of)} for of in (options.texts, options.train_texts)
  )
  if len(one & other) < 2:
    raise InputError(
      f'two or more languages of parity.texts must have text to train on; got {len(one & other)}.'
    )
  return sorted(one & other)


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """How unequal the languages are under each tokenizer."""
  found = {row.where['tokenizer']: [row] for row in select(rows, 'parity', 'gini')}
  panel = plots.row_bars('How unequal languages are', 'Gini coefficient', ['gini'], found, {})
  caption = 'The Gini coefficient of the tokens that each language takes for the same text.'
  return {'parity.png': plots.Picture(caption, [panel] if found else [])}


TABLE = Table(
  'parity',
  measure,
  'BPE, and parity-aware BPE of the same size, which merges for the language whose parallel text '
  'is longest so far. Both learn within words on two lines in three of the translations, or on '
  'other text of the same languages, and are measured on the other lines. `gini` and '
  '`parity_worst` compare the tokens of the whole text in each language: its bytes times the '
  'tokens per byte of its held-out lines. They are 0 and 1 if languages are equal. Both '
  'tokenizers are in WORKDIR/tokenizers, for the grid. ± is one standard error, from a bootstrap '
  'over lines.',
  ('gini', 'gini_less_bpe', 'parity_worst', 'bytes_per_token'),
  check=check,
  pictures=pictures,
)
