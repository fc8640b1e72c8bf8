# SPDX-License-Identifier: Apache-2.0
"""The text that M2 reads, as tokens of one method."""

import functools
from collections.abc import Iterator, Sequence

import grain
from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import codecs, texts
from lib.data import pipeline
from lib.data.encoded import Encoded
from lib.data.encoded import encode as keep
from lib.models import one_pass
from lib.models.byte_model import ByteModel
from lib.models.byte_stepper import ByteStepper
from lib.tokenizers import EqualInfo
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.coding.stepping import Coded, Stepped
from lib.tokenizers.coding.streams import SteppedAC
from lib.tokenizers.coding.window_streams import SteppedEqualInfo
from lib.train.experiment import Batch

TOGETHER = 1024  # examples that are encoded side by side
HELD_OUT = 8  # examples of one held-out document at most


class Corpus:
  """The text of M2 as tokens of one method, encoded once a workdir.

  Text is cut into examples of equal bytes, each a stream of its own, as in the paper.

  Args:
    config: of the recipe.
    run: its workdir keeps tokenizers and tokens.
    method: the tokenizer.
  """

  def __init__(self, config: ConfigDict, run: runner.Run, method: codecs.Method):
    self.config, self.run, self.method = config, run, method
    self.tokenizer: Tokenizer = codecs.make(config, run, method)

  @property
  def vocab_size(self) -> int:
    """V."""
    return self.tokenizer.vocab_size

  @property
  def window(self) -> int:
    """Tokens of an equal-info window; 1 for all other tokenizers."""
    if isinstance(self.tokenizer, EqualInfo):
      bits = self.tokenizer.table.bits
    elif isinstance(self.tokenizer, SteppedEqualInfo):
      bits = self.tokenizer.bits
    else:
      return 1
    return bits // self.method.token_bits if self.method.token_bits else 1

  @functools.cached_property
  def train(self) -> Encoded:
    """Training examples; fewer where M1 has to step through them."""
    options = self.config.m2
    stepped = isinstance(self.tokenizer, Stepped)
    return self._encode('train', options.stepped_bytes if stepped else options.train_bytes)

  @functools.cached_property
  def validation(self) -> Encoded:
    """Examples that training is watched on."""
    return self._encode('validation', self.config.m2.validation_bytes)

  @functools.cached_property
  def test(self) -> Encoded:
    """Examples that the table is measured on."""
    return self._encode('test', self.config.m2.test_bytes)

  def _encode(self, split: str, total: int) -> Encoded:
    most = None if split == 'train' else HELD_OUT
    examples = texts.stretches(self.config, split, self.config.m2.example_bytes, total, most)
    return encoded(self.run, self.tokenizer, examples)

  def batches(self, seed: int) -> grain.IterDataset:
    """Training batches."""
    options = self.config.m2
    return pipeline.batches(
      self.train, self.tokenizer, batch_size=options.batch_size, length=options.length, seed=seed,
      pack=options.pack,
    )  # fmt: skip

  def rows(self, examples: Encoded) -> Iterator[Batch]:
    """One pass over examples, each a row of its own, cropped to the length of training."""
    options = self.config.m2
    longest = -(-int(examples.counts.max()) // 8) * 8
    return iter(
      pipeline.batches(
        examples, self.tokenizer, batch_size=options.batch_size,
        length=min(longest, options.length), seed=0, pack=False, shuffle=False, repeat=False,
      )
    )  # fmt: skip


def encoded(run: runner.Run, tokenizer: Tokenizer, documents: Sequence[bytes]) -> Encoded:
  """Documents as tokens; codecs that step M1 through a text are spared that, see `one_pass`."""
  if not isinstance(tokenizer, Stepped) or not isinstance(tokenizer.stepper, ByteStepper):
    return codecs.tokens(run, tokenizer, documents)
  work = functools.partial(_unstepped, tokenizer, tokenizer.stepper.model)
  return keep(run.workdir / 'encoded', f'one pass {tokenizer.fingerprint}', documents, work)


def _unstepped(tokenizer: Stepped, model: ByteModel, documents: Sequence[bytes]) -> list[Coded]:
  if isinstance(tokenizer, SteppedAC):
    return one_pass.encode_all(model, documents, tokenizer.token_bits)
  assert isinstance(tokenizer, SteppedEqualInfo)
  coded: list[Coded] = []
  for begin in range(0, len(documents), TOGETHER):
    part = documents[begin : begin + TOGETHER]
    foreseen = one_pass.Foreseen(model, part, tokenizer.bits // 2)
    codec = SteppedEqualInfo(
      foreseen, model.fingerprint, tokenizer.bits, tokenizer.mode, tokenizer.token_bits
    )
    coded += codec.encode_all(part)
  return coded
