# SPDX-License-Identifier: Apache-2.0
"""Table `compare`: any tokenizers on any texts."""

import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import coders, tokenizer_names
from experiments.recipe import Pictures, Run, Table, naming
from experiments.tokenizer_names import is_file
from lib import stats, tokenizers
from lib.data import categories, sources
from lib.errors import InputError
from lib.evals import segmentation
from lib.evals.segmentation import Segmented
from lib.report import plots
from lib.report.results import Row, Rows, select
from lib.tokenizers import Tokenizer, registry

ALL = 'all'
OVER = 'blocks'


def check(config: ConfigDict) -> None:
  """Raises InputError for unknown or equal tokenizers, or for texts that are missing or short."""
  options = config.compare
  with naming('compare.texts' if options.texts else 'data.source'):
    categories.check(spec(config))
  tokenizer_names.check_families('compare.tokenizers', options.tokenizers, options.vocab_size)
  if options.train_texts:
    with naming('compare.train_texts'):
      sources.open_source(options.train_texts, 'train')
  elif options.parallel and not all(map(is_file, options.tokenizers)):
    raise InputError(
      'compare.parallel: texts that are translations are measured whole, so give other text to '
      'train on by compare.train_texts=DIR, or tokenizers that are files.'
    )
  with naming('compare.texts' if options.texts else 'data.source'):
    _texts(config)


def spec(config: ConfigDict) -> str:
  """The source of the texts: that of the table, or otherwise of the recipe."""
  return config.compare.texts or config.data.source


def measure(config: ConfigDict, run: Run) -> Rows:
  """Rows of each tokenizer on each text, and on all texts together."""
  options, made = config.compare, dict[str, Tokenizer]()
  training, texts = _texts(config)
  rows = Rows('compare', lambda where: not made[where['tokenizer']].lossless)
  for name, label in tokenizer_names.labels(options.tokenizers).items():
    made[label] = _make(config, run, name, training)
    found = {text: segmentation.segment(made[label], blocks) for text, blocks in texts.items()}
    for text, one in found.items():
      _add(rows, {'tokenizer': label, 'text': text}, made[label], one, [one], options.draws)
    where, every = {'tokenizer': label, 'text': ALL}, [*found.values()]
    _add(rows, where, made[label], segmentation.join(every), every, options.draws)
    _add_parity(rows, where, every, options)
  return rows


def _texts(config: ConfigDict) -> tuple[list[bytes], dict[str, list[bytes]]]:
  """The text to train on, and the blocks of each text to measure; they share no text.

  Raises:
    InputError: a text that is empty, or too short to train on one half of it.
  """
  options = config.compare
  files = all(map(is_file, options.tokenizers))
  training, known = _texts_of(
    spec(config), config.seed, options.train_bytes * (not (files or options.train_texts)),
    options.text_bytes * (not options.parallel),
  )  # fmt: skip
  if options.train_texts:
    source = sources.open_source(options.train_texts, 'train')
    training = sources.sample(source, options.train_bytes)
  return training, known


@functools.lru_cache(maxsize=1)  # the check of the config reads the same text
def _texts_of(
  where: str, seed: int, train_bytes: int, text_bytes: int
) -> tuple[list[bytes], dict[str, list[bytes]]]:
  """Text to train on, none if `train_bytes` is 0, and the blocks of each text; 0 bytes: all."""
  known, training = categories.open_categories(where), list[bytes]()
  if train_bytes:
    parts, known = categories.halves(known, seed, train_bytes // len(known), text_bytes)
    training = [document for documents in parts.values() for document in documents]
  found = {}
  for name, documents in known.items():
    if text_bytes:
      documents = categories.take(documents, text_bytes)
    blocks = [block for document in documents for block in categories.blocks(document)]
    if not blocks:
      raise InputError(f'{name!r} has no text in its first bytes: choose a larger text_bytes.')
    found[re.sub(r'[^\w.+-]', '_', name)] = blocks
  return training, found


def _make(config: ConfigDict, run: Run, name: str, training: Sequence[bytes]) -> Tokenizer:
  if is_file(name):
    return tokenizers.load(name)
  learn = lambda: registry.train(name, training, config.compare.vocab_size)
  return coders.kept(run, f'compare-{name}', learn)


def _add(
  rows: Rows,
  where: Mapping[str, str],
  tokenizer: Tokenizer,
  found: Segmented,
  parts: Sequence[Segmented],
  draws: int,
) -> None:
  """Adds the columns of a tokenizer on a text, whose `parts` are the strata of the bootstrap."""
  of = lambda above, below: lambda weights: (weights @ above) / max(weights @ below, 1)
  drawn = lambda statistic: stats.bootstrap(
    statistic, [one.sizes.size for one in parts], draws, over=OVER
  )
  rule = getattr(tokenizer, 'rule', '')
  note = f'{found.sizes.sum():,} bytes in {found.sizes.size} blocks' + f'; rule {rule}' * bool(rule)
  for column, above, below, unit in (
    ('bytes_per_token', found.sizes, found.tokens, 'bytes/token'),
    ('tokens_per_word', found.tokens, found.words, 'tokens/word'),
    ('chars_per_token', found.characters, found.tokens, 'chars/token'),
  ):
    rows.add(where, column, drawn(of(above, below)), unit, note)
  rows.add(where, 'share_restored', found.restored.share_bytes, 'of the bytes')
  rows.add(where, 'share_unknown', found.restored.share_unknown, 'of the bytes')
  counts, size = found.counts, tokenizer.vocab_size
  used = float((counts.sum(axis=0) > 0).mean())
  rows.add(where, 'share_vocab_used', used, f'of {size:,} ids', 'rises with the size of the text')
  efficiency = drawn(lambda weights: segmentation.renyi_efficiency(weights @ counts, size))
  note = f'order {segmentation.ORDER}; of all {size:,} ids, used or not'
  rows.add(where, 'renyi_efficiency', efficiency, 'share', note)
  stay, there = found.stable.T
  note = 'that stay where they are when the first half of a block is cut away'
  if there.sum():
    rows.add(
      where, 'boundary_stability', stats.ratio(stay, there, over=OVER), 'of boundaries', note
    )
  speed = found.sizes.sum() / 1e6 / max(found.seconds, 1e-9)
  rows.add(
    where, 'encode_mb_per_s', speed, '10⁶ bytes/s', 'of CPU time of one thread, one call a block'
  )


PARITY = (  # column, statistic of the costs [n], note
  ('gini', segmentation.gini, 'Gini coefficient'),
  ('parity_worst', lambda found: float(found.max() / found.min()), 'largest over smallest'),
)


def costs(
  texts: Sequence[Segmented], weights: np.ndarray, sizes: Sequence[int] | None = None
) -> np.ndarray:
  """Tokens per byte of each text [n], or the tokens of all of a text.

  Args:
    texts: under one tokenizer.
    weights: how often each block of the texts counts, [N].
    sizes: the bytes of the whole texts, of which the blocks are a sample.
  """
  parts = np.split(weights, np.cumsum([one.sizes.size for one in texts])[:-1])
  pairs = [*zip(texts, parts, strict=True)]
  found = np.array([(each @ one.tokens) / max(each @ one.sizes, 1) for one, each in pairs])
  return found if sizes is None else found * sizes


def _add_parity(
  rows: Rows, where: Mapping[str, str], texts: Sequence[Segmented], options: ConfigDict
) -> None:
  """Adds measures of how unequal the costs of the texts are."""
  what = 'tokens of texts that are translations' if options.parallel else 'tokens per byte'
  sizes = [one.sizes.sum() for one in texts] if options.parallel else None
  for column, statistic, note in PARITY:
    value = lambda weights, of=statistic: of(costs(texts, weights, sizes))
    strata = [one.sizes.size for one in texts]
    found = stats.bootstrap(value, strata, options.draws, over=OVER)
    rows.add(where, column, found, '', f'{note} of {what}')


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Bytes per token of each tokenizer on each text."""
  found = select(rows, 'compare', 'bytes_per_token')
  labels = list(dict.fromkeys(row.where['tokenizer'] for row in found))
  texts = list(dict.fromkeys(row.where['text'] for row in found))
  value = {(row.where['text'], row.where['tokenizer']): row.measured for row in found}
  values = [[value[text, label] for label in labels] for text in texts]
  panel = plots.heat_map('How long tokens are', values, texts, labels, 'bytes per token')
  caption = 'Bytes per token of each tokenizer (columns) on each text (lines).'
  return {'compare.png': plots.Picture(caption, [panel] if found else [])}


TABLE = Table(
  'compare',
  measure,
  'How tokenizers cut texts. Families are trained on other text of the same kinds; files are used '
  'as they are. ± is one standard error, from a bootstrap over blocks of at most 8 kB. A word is '
  'text between whitespace. `renyi_efficiency` is the Rényi entropy of the ids divided by the '
  'logarithm of the number of ids; a duplicated token raises it without any use. `gini` and '
  '`parity_worst` compare the texts: their tokens if `compare.parallel` says that they are '
  'translations of one another, otherwise their tokens per byte.',
  (
    'bytes_per_token',
    'tokens_per_word',
    'chars_per_token',
    'share_restored',
    'share_unknown',
    'share_vocab_used',
    'renyi_efficiency',
    'boundary_stability',
    'encode_mb_per_s',
    'gini',
    'parity_worst',
  ),
  rows=lambda where: where['text'] == ALL,
  check=check,
  pictures=pictures,
)
