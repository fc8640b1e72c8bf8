# SPDX-License-Identifier: Apache-2.0
"""A cell of the grid: models of several seeds for a tokenizer and an embedding, and their scores.

All cells score the same held-out documents. After little training a model is close to a unigram
over its tokens, and unigrams differ before anything is trained. So a cell has its bits and
its gain: what its models save over a unigram over the very same tokens.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import rates, runner
from experiments.matrix import models, tokens
from experiments.matrix.corpus import Corpus, check_epochs, check_examples
from experiments.visual_unicode.models import Trained, fit_model
from lib import stats
from lib.data import pipeline
from lib.errors import InputError
from lib.models.decoder import LanguageModel
from lib.report.results import LOSSY, Row, mark_lossy, name
from lib.tokenizers import Tokenizer

BITS, GAIN = 'bits_per_byte', 'gain_over_unigram_bits_per_byte'
ABOUT_NAMES = (
  ' `bpe` and `lzw` merge across spaces; `sentencepiece` and `wordpiece` stay within words. '
  f'Tokenizers that are not lossless ({LOSSY}) are not ranked.'
)


@dataclasses.dataclass(frozen=True)
class Scores:
  """What S models of a cell score on the same D held-out documents.

  Attributes:
    nats: float64 [S, D].
    unigram: float64 [D], nats under a unigram over the same tokens.
    bytes: float64 [D].
    lossless: whether the tokenizer gives every text back.
  """

  nats: np.ndarray
  unigram: np.ndarray
  bytes: np.ndarray
  lossless: bool = True

  @property
  def bits(self) -> np.ndarray:
    """Contributions [S, D] to bits per byte (`lib.stats.contributions`)."""
    return stats.contributions(self.nats / np.log(2), self.bytes)

  @property
  def gain(self) -> np.ndarray:
    """Contributions [S, D] to the bits per byte below the unigram."""
    return stats.contributions((self.unigram - self.nats) / np.log(2), self.bytes)


Chosen = dict[tuple[str, str], tuple[float, str]]  # (family, embedding) -> rate, and where chosen


def check(config: ConfigDict, options: ConfigDict, where: str) -> None:
  """Raises InputError for a section of the config, called `where`, that cannot be run."""
  if not options.tokenizers:
    raise InputError(f'{where}.tokenizers must name at least one.')
  for field in ('layers', 'heads', 'dim', 'seeds', 'side_by_side', 'example_bytes', 'batch_bytes',
                'train_bytes', 'validation_bytes', 'test_bytes'):  # fmt: skip
    if options[field] < 1:
      raise InputError(f'{where}.{field} must be 1 or more; got {options[field]}.')
  if options.rates and min(options.rates) <= 0:
    raise InputError(f'{where}.rates must be positive; got {tuple(options.rates)}.')
  if not 0 < options.rate_share <= 1:
    raise InputError(f'{where}.rate_share must be above 0 and at most 1; got {options.rate_share}.')
  if not options.teraflops > 0:
    raise InputError(f'{where}.teraflops must be above 0; got {options.teraflops}.')
  tokens.check(config, f'{where}.tokenizers', options.tokenizers)
  check_examples(config, options, where)
  check_epochs(config, options, where)


def row_of(tokenizer: str, embedding: str) -> str:
  """The row of a cell; `tokenizer` is a label."""
  return name(tokenizer=tokenizer, embedding=embedding)


def marked(rows: Sequence[Row], found: Mapping[str, Tokenizer]) -> list[Row]:
  """The rows, `lossy` where the tokenizer of that label is not lossless."""
  lossy = {label for label, tokenizer in found.items() if not tokenizer.lossless}
  return mark_lossy(rows, lambda parts: parts.get('tokenizer') in lossy)


def parameters(model: LanguageModel, corpus: Corpus) -> int:
  """Of the decoder, without embedding and readout."""
  batch, key = next(iter(corpus.batches(0))), jax.random.key(0)
  shapes = jax.eval_shape(lambda: model.init(key, batch, key))
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes['params']['decoder']))


def run_name(table: str, corpus: Corpus, embedding: str) -> str:
  """Where a cell's checkpoints and metrics lie in the workdir.

  The tokenizer's fingerprint is part of it, so that no other tokenizer takes up its checkpoints.
  """
  return f'{table}/{row_of(corpus.label, embedding)},tokens={corpus.tokenizer.fingerprint[:12]}'


def measure(
  config: ConfigDict,
  run: runner.Run,
  corpus: Corpus,
  table: str,
  row: str,
  embedding: str,
  chosen: Chosen,
) -> tuple[list[Row], Scores | None]:
  """Trains and scores the models of a cell, or says in a row why that is impossible.

  Args:
    config: of the recipe.
    run: its workdir has the checkpoints.
    corpus: the text in the tokens of the cell.
    table: of the rows.
    row: their name.
    embedding: of the cell.
    chosen: learning rates of the cells so far; that of a new kind of cell is added.
  """
  try:
    model = models.make(config, corpus.tokenizer, embedding)
  except InputError as error:
    note = f'impossible: {error}'
    return [Row(table, row, BITS, None, unit='bits/byte', note=note)], None
  size = parameters(model, corpus)
  steps = corpus.steps(size)
  where = run_name(table, corpus, embedding)
  kind = corpus.family, embedding
  if kind not in chosen:
    chosen[kind] = learning_rate(config, run, corpus, where, model, steps), corpus.label
  rate, over = chosen[kind]
  options = ConfigDict(
    corpus.options.to_dict() | {'steps': steps, 'evaluate_every': steps, 'peak': rate}
  )
  trained = fit_model(config, run, options, where, model, corpus.batches)
  lossless = corpus.tokenizer.lossless
  nats = np.stack([corpus.by_document(one) for one in _score(corpus, corpus.test, trained)])
  scores = Scores(nats, corpus.unigram, corpus.test_bytes, lossless)
  speeds = [line['tokens_per_second'] for line in trained[0].history if 'tokens_per_second' in line]
  found = stats.crossed(scores.bits)
  rows = [
    Row.of(table, row, BITS, found, unit='bits/byte', note=corpus.about_test),
    Row.of(table, row, GAIN, stats.crossed(scores.gain), unit='bits/byte',
           note='the unigram less the model, over the same tokens'),
    Row(table, row, 'learning_rate', rate, note=about_rate(corpus.options, over)),
    Row(table, row, 'bytes_per_token', corpus.bytes_per_token, unit='bytes/token'),
    Row(table, row, 'mflops_per_byte', corpus.mflops(size), unit='MFLOP/byte'),
    Row(table, row, 'tokens_per_second', float(np.median(speeds)), unit='tokens/s',
        note=f'in training, {min(options.side_by_side, options.seeds)} seeds together'),
  ]  # fmt: skip
  if corpus.law is not None:
    regret = stats.contributions((scores.nats - corpus.law) / np.log(2), scores.bytes)
    rows.append(Row.of(table, row, 'regret_bits_per_byte', stats.crossed(regret),
                       unit='bits/byte', note='less the law of the text, paired'))  # fmt: skip
  for seed, bits in enumerate(scores.bits, start=config.seed):
    one = stats.mean(bits, over='documents')
    rows.append(Row.of(table, f'{row},{name(seed=seed)}', BITS, one, unit='bits/byte'))
  return rows, scores


def law(table: str, corpus: Corpus) -> list[Row]:
  """The row of the bits of the law that wrote the text, below which no model comes on average."""
  if corpus.law is None:
    return []
  found = stats.ratio(corpus.law, corpus.test_bytes).times(1 / np.log(2))
  return [Row.of(table, name(model='law'), 'law_bits_per_byte', found, unit='bits/byte',
                 note='the n-gram law that wrote the text: the floor of all cells')]  # fmt: skip


def learning_rate(
  config: ConfigDict, run: runner.Run, corpus: Corpus, where: str, model: LanguageModel, steps: int
) -> float:
  """The rate of a cell: the best by validation text, with one seed and `rate_share` of the steps.

  The test text has no part in the choice, and its FLOPs do not count.
  """
  options = corpus.options
  few = max(1, round(options.rate_share * steps))
  short = options.to_dict() | {'steps': few, 'evaluate_every': few, 'seeds': 1, 'side_by_side': 1}

  def validation_loss(rate: float) -> float:
    there = f'{where},{name(rate=rate)}'
    one = fit_model(config, run, ConfigDict(short | {'peak': rate}), there, model, corpus.batches)
    return float(_score(corpus, corpus.validation, one)[0].sum() / corpus.validation_bytes)

  return rates.choose(options.rates or (options.peak,), validation_loss)


def about_rate(options: ConfigDict, over: str) -> str:
  """How a rate was chosen, over the tokens of which tokenizer, for a note."""
  if len(options.rates) < 2:
    return 'at its peak; not chosen'
  choice = ', '.join(f'{rate:g}' for rate in options.rates)
  share = f'{options.rate_share:.0%} of the steps'
  return f'at its peak; of {choice} by validation text over {over}, one seed, {share}'


def _score(corpus: Corpus, text: pipeline.Encoded, trained: Sequence[Trained]) -> list[np.ndarray]:
  """Nats [tokens] of a held-out text under the model of each seed."""
  apply = jax.jit(trained[0].model.apply)
  batches = [(jax.random.key(index), batch) for index, batch in enumerate(corpus.held_out(text))]
  found = []
  for one in trained:
    nats = [
      np.asarray(apply(one.variables, batch, key), np.float64)[batch['segments'] > 0]
      for key, batch in batches
    ]
    found.append(np.concatenate(nats))
  return found
