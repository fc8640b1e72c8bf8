# SPDX-License-Identifier: Apache-2.0
"""Table `quality`: models over each tokenizer, at equal FLOPs of training and bytes of context."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from experiments import coders, equal_flops, fit, tokenizer_names
from experiments.equal_flops import BITS, GAIN, Corpus
from experiments.recipe import Pictures, Run, Table, naming
from experiments.tokenizer_names import is_file
from lib import stats, tokenizers
from lib.data import sources
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.models.decoder import LanguageModel
from lib.report import plots
from lib.report.results import Row, Rows, select
from lib.tokenizers import Tokenizer, registry

WITHIN = 'bpe'
PAIRED = 'seeds×documents'


def check(config: ConfigDict) -> None:
  """Raises InputError for unknown or equal tokenizers, a text that is not there, invalid sizes."""
  options = config.quality
  tokenizer_names.check_families('quality.tokenizers', options.tokenizers, options.vocab_size)
  with naming('quality.source'):
    sources.open_source(options.source, 'train')
  if {WITHIN, 'superbpe'} <= {*options.tokenizers} and _transition(options) == options.vocab_size:
    raise InputError(
      f'quality.transition: with {options.transition:g} superbpe is the same tokenizer as bpe; '
      'choose a smaller share.'
    )
  equal_flops.check(_config(config), options, 'quality', options.vocab_size, 'quality.source')


def _config(config: ConfigDict) -> ConfigDict:
  """The config with the table's text in the place of the recipe's."""
  found = config.copy_and_resolve_references()
  found.data.source = config.quality.source
  return found


def measure(config: ConfigDict, run: Run) -> Rows:
  """Trains and scores the models; bits per byte and the cost of reading are separate columns."""
  config, options = _config(config), config.quality
  made: dict[str, Tokenizer] = {}
  rows = Rows('quality', lambda where: not made[where['tokenizer']].lossless)
  scores = {}
  for name, label in tokenizer_names.labels(options.tokenizers).items():
    made[label] = _make(config, run, name)
    corpus, where = Corpus(config, run, made[label], label, options), {'tokenizer': label}
    dtype = fit.dtype(config)
    embedding = Learned(made[label].vocab_size, options.dim, dtype=dtype)
    model = LanguageModel(embedding, fit.make_decoder(options, dtype))
    chosen = equal_flops.Chosen()  # a learning rate for each tokenizer
    scores[label] = equal_flops.measure(config, run, corpus, rows, where, model, 'learned', chosen)
    corpus.add_costs(rows, where)
    rows.add(where, 'vocab_size', made[label].vocab_size, 'ids')
  bits = {label: one.bits for label, one in scores.items()}
  if WITHIN in bits:
    for label, gap in stats.arms(bits, WITHIN, PAIRED).items():
      share = gap.times(1 / float(bits[WITHIN].mean()))
      rows.add({'tokenizer': label}, 'above_bpe', share, 'of its bits per byte', 'paired')
  return rows


def _make(config: ConfigDict, run: Run, name: str) -> Tokenizer:
  if is_file(name):
    return tokenizers.load(name)

  def learn() -> Tokenizer:
    source = sources.open_source(config.data.source, 'train')
    text = sources.sample(source, config.quality.learn_bytes)
    options = config.quality
    late = {'transition': _transition(options)} if name == 'superbpe' else {}
    return registry.train(name, text, options.vocab_size, **late)

  return coders.kept(run, f'quality-{name}', learn)


def _transition(options: ConfigDict) -> int:
  """The ids of SuperBPE that are learned within words."""
  return max(256, round(options.transition * options.vocab_size))


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Bits per byte above those of BPE, paired, against the cost of reading a byte."""
  of = lambda column: {
    row.where['tokenizer']: row
    for row in select(rows, 'quality', column)
    if 'seed' not in row.where
  }
  costs, above = of('mflops_per_byte'), of('above_bpe')
  if above:
    above['bpe'] = Row('quality', {'tokenizer': 'bpe'}, 'above_bpe', 0.0)
  points = {label: {label: (costs[label].measured or 0.0, row)} for label, row in above.items()}
  title = 'Bits and cost of a byte, at equal FLOPs of training'
  panel = plots.trade(title, 'MFLOP to read a byte', 'bits above BPE, as a share', points, [])
  caption = (
    'Bits per byte above those of BPE, paired by seed and document, against the cost of reading a '
    'byte; the dashed line joins the best.'
  )
  return {'quality.png': plots.Picture(caption, [panel] if points else [])}


TABLE = Table(
  'quality',
  measure,
  'Models over each tokenizer at equal FLOPs of training and equal bytes of context. Bits per byte '
  'say how good a model is, MFLOP per byte what it costs to read; neither says both. The gain is '
  'over a unigram of the same tokens, whose own bits depend on the tokenizer. `above_bpe` is the '
  'difference from `bpe`, as a share of its bits. ± is one standard error over seeds × documents.',
  (BITS, GAIN, 'above_bpe', 'mflops_per_byte', 'bytes_per_token', 'steps', 'vocab_size'),
  check=check,
  pictures=pictures,
  sources=lambda config: (config.quality.source,),
)
