# SPDX-License-Identifier: Apache-2.0
"""Table `lib`: LiB, which learns a lexicon by reading and forgetting, compared with BPE."""

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments.recipe import Pictures, Run, Table, naming
from experiments.tokenizers.compression import RULE, about, count
from lib import stats
from lib.data import sources
from lib.report import plots
from lib.report.results import Row, Rows, select
from lib.threads import on_all_cores
from lib.tokenizers import Tokenizer, registry
from lib.tokenizers.less_is_better import train_lib

LIB, WITHIN, UNSPLIT = 'lib', 'bpe', 'bpe_unsplit'
OTHERS = (WITHIN, UNSPLIT, 'superbpe')  # of the size that LiB has found
OVER = 'seeds×documents'


def check(config: ConfigDict) -> None:
  """Raises InputError for a text that is not there."""
  with naming('lib.text'):
    for split in ('train', 'test'):
      sources.open_source(config.lib.text, split)


def measure(config: ConfigDict, run: Run) -> Rows:
  """LiB of each seed, and other tokenizers with as many ids, on held-out text."""
  options, rows = config.lib, Rows('lib')
  held = sources.sample(sources.open_source(options.text, 'test'), options.test_bytes)
  seeds = range(config.seed, config.seed + options.seeds)
  jobs = [(options, seed) for seed in seeds]
  made = on_all_cores('lib', _of_seed, jobs)
  sizes = np.array([*map(len, held)])
  tokens = {name: np.array([count(one[name], held) for one in made]) for name in (LIB, *OTHERS)}
  types = {name: [_types(one[name], held) for one in made] for name in tokens}
  for name, counts in tokens.items():
    where, note = {'tokenizer': name}, f'{about(made[0][name])} (the first seed)'
    each = stats.contributions(np.broadcast_to(sizes, counts.shape), counts)
    found = stats.crossed(each, OVER)
    rows.add(where, 'bytes_per_token', found, 'bytes/token', f'{note}; {sizes.sum():,} bytes')
    note = f'than bpe of as many ids within words, rule {RULE}'
    for column, other in (('fewer_tokens', WITHIN), ('fewer_tokens_than_unsplit', UNSPLIT)):
      fewer = stats.contributions(tokens[other] - counts, tokens[other])
      about_it = note if other == WITHIN else f'than {other} of as many ids'
      rows.add(where, column, stats.crossed(fewer, OVER), 'share', about_it)
    fewer_types = [1 - one / other for one, other in zip(types[name], types[WITHIN], strict=True)]
    rows.add(where, 'types_used', stats.mean(types[name]), 'ids', 'that the held-out text has')
    rows.add(where, 'fewer_types', stats.mean(fewer_types), 'share', note)
    spaces = [_spaces(one[name]) for one in made]
    rows.add(where, 'share_with_space', stats.mean(spaces), 'of ids', 'with a space inside')
    vocabulary = stats.mean([one[name].vocab_size for one in made])
    rows.add(where, 'vocab_size', vocabulary, 'ids', 'an outcome of LiB')
  return rows


def _of_seed(options: ConfigDict, seed: int) -> dict[str, Tokenizer]:
  documents = sources.sample(sources.open_source(options.text, 'train'), options.train_bytes)
  made: dict[str, Tokenizer] = {
    LIB: train_lib(
      documents,
      options.vocab_size,
      passes=options.passes,
      sentences=options.sentences,
      life=options.life,
      forget=options.forget,
      seed=seed,
    )
  }
  for name in OTHERS:
    # Of a small text, pairs that come once must be joined to make as many ids.
    made[name] = registry.train(name, documents, made[LIB].vocab_size, min_count=1)
  return made


def _types(tokenizer: Tokenizer, documents: Sequence[bytes]) -> int:
  """How many ids the documents have."""
  return np.unique(np.concatenate(tokenizer.encode_batch(documents))).size


def _spaces(tokenizer: Tokenizer) -> float:
  """The share of ids with a space inside."""
  pieces = [tokenizer.token_bytes(i) or b'' for i in range(tokenizer.vocab_size)]
  return float(np.mean([b' ' in piece.strip() for piece in pieces]))


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """How many tokens each saves."""
  found = {row.where['tokenizer']: [row] for row in select(rows, 'lib', 'fewer_tokens')}
  found.pop('bpe', None)  # what the others are compared with
  panel = plots.row_bars(
    'Fewer tokens than BPE within words', 'share', ['held-out text'], found, {}
  )
  caption = 'Tokens saved by LiB and by other tokenizers with as many ids.'
  return {'lib.png': plots.Picture(caption, [panel])}


TABLE = Table(
  'lib',
  measure,
  'LiB reads the text repeatedly, joins neighbouring units, rewards useful units and forgets '
  'others. The size of its lexicon is an outcome; the other tokenizers have as many ids. '
  '`types_used` is the number of ids in the held-out text. ± is one standard error over seeds × '
  'documents, or seeds.',
  (
    'bytes_per_token',
    'fewer_tokens',
    'fewer_tokens_than_unsplit',
    'types_used',
    'fewer_types',
    'share_with_space',
    'vocab_size',
  ),
  check=check,
  pictures=pictures,
  sources=lambda config: (config.lib.text,),
)
