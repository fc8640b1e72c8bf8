# SPDX-License-Identifier: Apache-2.0
"""A cell of the grid: models of several seeds for a tokenizer and an embedding, and their scores.

All cells score the same held-out documents. After little training a model is close to a unigram
over its tokens, and unigrams differ before anything is trained. So beside its bits a cell has its
gain: what its models save over a unigram over the very same tokens.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.matrix import models, tokens
from experiments.matrix.corpus import Corpus, check_epochs, examples
from experiments.visual_unicode.models import Trained, fit_model
from lib import stats
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


def check(config: ConfigDict, options: ConfigDict, where: str) -> None:
  """Raises InputError for a section of the config, called `where`, that cannot be run."""
  if not options.tokenizers:
    raise InputError(f'{where}.tokenizers must name at least one.')
  for field in ('layers', 'heads', 'dim', 'seeds', 'side_by_side', 'example_bytes', 'batch_bytes',
                'train_bytes', 'test_bytes'):  # fmt: skip
    if options[field] < 1:
      raise InputError(f'{where}.{field} must be 1 or more; got {options[field]}.')
  if not options.teraflops > 0:
    raise InputError(f'{where}.teraflops must be above 0; got {options.teraflops}.')
  tokens.check(config, f'{where}.tokenizers', options.tokenizers)
  one = ConfigDict(options.to_dict() | dict.fromkeys(('train_bytes', 'test_bytes'), 1))
  for split in ('train', 'test'):
    examples(config, one, split)
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
  config: ConfigDict, run: runner.Run, corpus: Corpus, table: str, row: str, embedding: str
) -> tuple[list[Row], Scores | None]:
  """Trains and scores the models of a cell, or says in a row why there are none."""
  try:
    model = models.make(config, corpus.tokenizer, embedding)
  except InputError as error:
    note = f'impossible: {error}'
    return [Row(table, row, BITS, None, unit='bits/byte', note=note)], None
  size = parameters(model, corpus)
  steps = corpus.steps(size)
  options = ConfigDict(corpus.options.to_dict() | {'steps': steps, 'evaluate_every': steps})
  where = run_name(table, corpus, embedding)
  trained = fit_model(config, run, options, where, model, corpus.batches)
  lossless = corpus.tokenizer.lossless
  scores = Scores(_score(corpus, trained), corpus.unigram, corpus.test_bytes, lossless)
  rates = [line['tokens_per_second'] for line in trained[0].history if 'tokens_per_second' in line]
  found = stats.crossed(scores.bits)
  rows = [
    Row.of(table, row, BITS, found, unit='bits/byte', note=corpus.about_test),
    Row.of(table, row, GAIN, stats.crossed(scores.gain), unit='bits/byte',
           note='the unigram less the model, over the same tokens'),
    Row(table, row, 'bytes_per_token', corpus.bytes_per_token, unit='bytes/token'),
    Row(table, row, 'mflops_per_byte', corpus.mflops(size), unit='MFLOP/byte'),
    Row(table, row, 'tokens_per_second', float(np.median(rates)), unit='tokens/s',
        note=f'in training, {min(options.side_by_side, options.seeds)} seeds together'),
  ]  # fmt: skip
  for seed, bits in enumerate(scores.bits, start=config.seed):
    one = stats.mean(bits, over='documents')
    rows.append(Row.of(table, f'{row},{name(seed=seed)}', BITS, one, unit='bits/byte'))
  return rows, scores


def _score(corpus: Corpus, trained: Sequence[Trained]) -> np.ndarray:
  """Nats [S, D] of the held-out documents under the models of S seeds."""
  apply = jax.jit(trained[0].model.apply)
  batches = [(jax.random.key(index), batch) for index, batch in enumerate(corpus.held_out())]
  found = []
  for one in trained:
    nats = [
      np.asarray(apply(one.variables, batch, key), np.float64)[batch['segments'] > 0]
      for key, batch in batches
    ]
    found.append(corpus.by_document(np.concatenate(nats)))
  return np.stack(found)
