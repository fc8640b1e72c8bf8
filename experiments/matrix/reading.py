# SPDX-License-Identifier: Apache-2.0
"""The same bytes as rows of any tokenizer's tokens, and a model's cost of reading them.

Text is cut into examples of `grid.example_bytes` bytes (`lib.data.examples`). A step reads about
`grid.batch_bytes` bytes.

FLOPs are counted by formula, from the tokens of the examples themselves, padding left out: forward,
2 for each parameter of the decoder and each entry of the LM head and token, and 4·L·D for each pair
of a token and one that it sees; training, three times that. If M1 makes the tokens, its 2 per
parameter and byte are added, once in reading and once in training. Looking up or sampling rows of
an embedding is not counted.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import coders, fit
from experiments.matrix import tokens
from experiments.recipe import Run, naming
from lib import stats
from lib.data import epochs, excerpts, own_files, sources
from lib.data.examples import Examples
from lib.data.excerpts import Excerpts
from lib.data.ngram_text import NgramText
from lib.parallel.mesh import batch_devices
from lib.report.results import Rows

BYTES_A_TOKEN = 4  # approximate maximum over tokenizers of the grid
SHORT = 2.0  # bytes per token below which a tokenizer's tokens are short
MOST = 4  # examples of one held-out document: documents are the units of errors


def examples(config: ConfigDict, options: ConfigDict, split: str) -> Excerpts:
  """The text of a split in examples of `example_bytes`, the same for every tokenizer.

  Raises:
    InputError: no document is that long.
  """
  length, total = options.example_bytes, options[f'{split}_bytes']
  most = None if split == 'train' else MOST
  return excerpts.of_split(config.data.source, split, length=length, total=total, most=most)


def check(config: ConfigDict, options: ConfigDict) -> None:
  """Raises InputError if no document is as long as an example, or text is read too often.

  Tokens do not exist yet; a token is assumed to cover BYTES_A_TOKEN bytes.
  """
  length = options.example_bytes
  for split in own_files.SPLITS:
    # Reading endless text would need its law first, so its length is taken from the spec.
    if getattr(sources.open_source(config.data.source, split), 'length', 0) < length:
      with naming('grid.example_bytes'):
        excerpts.of_split(config.data.source, split, length=length, total=1)
  weights = 12 * options.layers * options.dim**2 + config.tokenizers.vocab_size * options.dim
  read = options.teraflops * 1e12 * BYTES_A_TOKEN / (6 * weights)
  epochs.check('data.source', config.data.source, read, config.scale, options.train_bytes)


class Corpus(Examples):
  """The text of the grid as tokens of one tokenizer, and their cost.

  Args:
    config: of the recipe.
    run: its workdir keeps tokenizers and tokens.
    name: the tokenizer.
    label: its name in rows.
    options: the section of the config with the text and the models, such as config.grid.

  Attributes:
    m1_flops: per byte, of M1 if it makes the tokens.
    law: nats [D] of the documents under the law of the text, or None if it is unknown.
    forward: FLOPs per byte to read training text, without M1.
    steps: of training, the number that the section's `teraflops` allow.
  """

  def __init__(self, config: ConfigDict, run: Run, name: str, label: str, options: ConfigDict):
    self.name, self.label, self.options = name, label, options
    tokenizer = tokens.make(config, run, name)
    text = {split: examples(config, options, split) for split in own_files.SPLITS}
    encode = lambda texts: coders.encode(run, tokenizer, texts, known=True)
    super().__init__(tokenizer, text, encode, options.batch_bytes, batch_devices(run.mesh))
    source = sources.open_source(config.data.source, 'test')
    self.law = None
    if isinstance(source, NgramText):
      self.law = self.by_document(source.excerpt_nats(text['test']))
    self.m1_flops = tokens.m1_flops(config, run, name)
    weights = _parameters(options) + tokenizer.vocab_size * options.dim
    counts = self.train.counts
    pairs = (counts * (counts + 1) // 2).sum()
    flops = 2 * weights * counts.sum() + 4 * options.layers * options.dim * pairs
    self.forward = float(flops / self.train_bytes)
    self._training = 3 * self.forward + self.m1_flops
    self.steps = max(1, round(options.teraflops * 1e12 / (self._training * self.step_bytes)))

  @property
  def mflops(self) -> float:
    """MFLOP to read a byte, M1 included."""
    return (self.forward + self.m1_flops) / 1e6

  @property
  def family(self) -> str:
    """Tokenizers that share a learning rate: a choice for each of them takes too long.

    Rates depend on the number of steps and on the information of a token: tokens of one or two
    bytes, longer tokens, and windows of compressed text.
    """
    if tokens.by_windows(self.name):
      return 'windows'
    return 'short' if self.bytes_per_token < SHORT else 'long'

  def add_costs(self, rows: Rows, where: Mapping[str, Any]) -> None:
    """Adds the data and compute of training, and the bits of a unigram."""
    read = self.steps * self.step_bytes
    note = f'{read / self.train_bytes:.2g} times {self.train_bytes:,} bytes of text'
    rows.add(where, 'steps', self.steps, 'steps')
    rows.add(where, 'training_bytes', read, 'bytes', note)
    rows.add(where, 'training_gflops', self._training * read / 1e9, 'GFLOP')
    bits = stats.ratio(self.unigram, self.test_bytes).times(1 / np.log(2))
    note = 'over the tokens, counted on the training text'
    rows.add(where, 'unigram_bits_per_byte', bits, 'bits/byte', note)


def _parameters(options: ConfigDict) -> int:
  """Of the decoder, without embedding and LM head."""
  x, places = jnp.zeros((1, 1, options.dim)), jnp.zeros((1, 1), jnp.int32)
  init = fit.make_decoder(options, x.dtype).init
  shapes = jax.eval_shape(init, jax.random.key(0), x, places, places)['params']
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
