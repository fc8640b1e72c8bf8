# SPDX-License-Identifier: Apache-2.0
"""The text that M2 reads, as tokens of one method."""

import itertools
from collections.abc import Iterator

import grain
import numpy as np
from ml_collections import ConfigDict

from experiments import coders
from experiments.recipe import Run
from lib.compression import byte_coders
from lib.data import excerpts, own_files, pipeline
from lib.data.encoded import Encoded
from lib.evals import ngram
from lib.train.experiment import Batch


class Corpus:
  """The text of M2 as tokens of one method, encoded once per workdir.

  Text is cut into examples of equal bytes, each a separate stream, as in the paper.

  Args:
    config: of the recipe.
    run: its workdir keeps tokenizers and tokens.
    method: the tokenizer.

  Attributes:
    texts: split -> the text of its examples, with their documents.
    train, validation, test: their tokens; less training text if M1 has to step through it.
    vocab_size: V.
    bytes_per_token: of the train corpus.
  """

  def __init__(self, config: ConfigDict, run: Run, method: coders.Method):
    self.config, self.run, self.method, options = config, run, method, config.m2
    self.tokenizer = coders.make(config, run, method)
    self.vocab_size = self.tokenizer.vocab_size
    sizes = [train_bytes(options, method), options.validation_bytes, options.test_bytes]
    self.texts = {
      split: excerpts.of_split(config.data.source, split, length=options.example_bytes, total=size)
      for split, size in zip(own_files.SPLITS, sizes, strict=True)
    }
    self.train, self.validation, self.test = (
      coders.encode(run, self.tokenizer, found.texts, known=True) for found in self.texts.values()
    )
    self.bytes_per_token = self.train.bytes / self.train.tokens.shape[1]

  @property
  def window(self) -> int:
    """Tokens of a window, which begins and ends with a token; 0 where there is no such window."""
    (kind, bits), token_bits = coders.parse(self.method.name), self.method.token_bits
    whole = kind in byte_coders.IN_WINDOWS and token_bits and bits % token_bits == 0
    return bits // token_bits if whole and token_bits else 0

  def read_bytes(self, steps: int) -> float:
    """Bytes of text that M2 reads in `steps` training steps."""
    return steps * self.config.m2.batch_size * self.config.m2.length * self.bytes_per_token

  def batches(self, seed: int) -> grain.IterDataset:
    """Training batches."""
    options = self.config.m2
    return pipeline.batches(
      self.train, self.tokenizer, batch_size=options.batch_size, length=options.length, seed=seed,
      pack=options.pack, lanes=options.lanes,
    )  # fmt: skip

  def windows(self, examples: Encoded) -> np.ndarray:
    """The windows of all examples, int64 [W, window]; -1 if the last of an example is cut short."""
    return ngram.windows(examples.tokens[0], examples.counts, self.window)

  def windows_read(self, seed: int) -> np.ndarray:
    """The windows that M2 reads whole in the rows of its training, int64 [W, window]."""
    batches = itertools.islice(self.batches(seed), self.config.m2.steps)
    return ngram.whole_windows(batches, self.window, self.vocab_size)

  def rows(self, examples: Encoded) -> Iterator[Batch]:
    """One pass over examples, each in a separate row, cropped to the length of training."""
    options = self.config.m2
    longest = -(-int(examples.counts.max()) // 8) * 8
    return iter(
      pipeline.batches(
        examples, self.tokenizer, batch_size=options.batch_size,
        length=min(longest, options.length), seed=0, pack=False, shuffle=False, repeat=False,
      )
    )  # fmt: skip


def train_bytes(options: ConfigDict, method: coders.Method) -> int:
  """Bytes of the train split for M2: fewer if M1 has to step through them."""
  return options.stepped_bytes if method.steps_m1 else options.train_bytes
