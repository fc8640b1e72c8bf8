# SPDX-License-Identifier: Apache-2.0
"""How fast batches are made at the papers' shapes, beside a training step that would eat them."""

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from configs.equal_info import PAPER
from experiments.tools.timing import time_calls
from lib.data import pipeline
from lib.data.encoded import Encoded
from lib.embeddings.learned import Learned
from lib.models.decoder import Decoder, LanguageModel
from lib.objectives.next_token import next_token
from lib.parameters import describe_model
from lib.report.results import Row
from lib.tokenizers.base import Tokenizer
from pallas_kernels.chips import CHIPS

SHAPE = (256, 512)  # rows and tokens of a batch of equal_info, paper, m2
ROWS = 2  # of the step that is timed: more take longer by as much
DOCUMENT = 4096  # bytes
VOCAB = 2**16


def table(
  plain: dict[str, Tokenizer],
  text: bytes,
  repeats: int,
  shape: tuple[int, int] = SHAPE,
  model: tuple = PAPER[0],
) -> Iterator[list[Row]]:
  """The step's row, then of each tokenizer how many tokens a second it feeds, read and packed."""
  appetite, flops = _appetite(model, shape[1], repeats)
  most = CHIPS['h200'].flops / flops
  row = dict(step=model[0], rows=ROWS, length=shape[1])
  note = 'loss and gradients on all cores'
  yield [Row('input', row, 'tokens_per_s', appetite, unit='tokens/s', note=note)]
  documents = [text[start : start + DOCUMENT] for start in range(0, len(text), DOCUMENT)]
  for method, codec in plain.items():
    for source, data in (('text', documents), ('tokens', _encoded(codec, documents))):
      rate = _rate(data, codec, repeats, shape)
      row = dict(method=method, source=source)
      yield [
        Row('input', row, 'tokens_per_s', rate, unit='tokens/s'),
        Row('input', row, 'times_appetite', rate / appetite, note='of the step above'),
        Row('input', row, 'times_h200', rate / most, note='of what an H200 takes at its peak'),
      ]


def _encoded(codec: Tokenizer, documents: Sequence[bytes]) -> Encoded:
  """What a run reads whose corpus was encoded before."""
  ids = [codec.encode(document) for document in documents]
  lengths = [codec.byte_lengths(row) for row in ids]
  counts = np.array([row.size for row in ids])
  return Encoded(np.concatenate(ids), np.concatenate(lengths), counts)


def _rate(source, codec: Tokenizer, repeats: int, shape: tuple[int, int]) -> float:
  """Tokens a second, from the second batch on: with the first the window of shuffling is filled."""
  batch_size, length = shape
  batches = iter(pipeline.batches(source, codec, batch_size=batch_size, length=length, seed=0))
  next(batches)
  begin = time.perf_counter()
  for _ in itertools.islice(batches, repeats):
    pass
  return repeats * batch_size * length / (time.perf_counter() - begin)


def _appetite(model: tuple, length: int, repeats: int) -> tuple[float, float]:
  """Of a model (name, layers, width, heads, MLP): what its loss and gradients take.

  Returns:
    tokens a second here, and operations a token by the usual count.
  """
  _, layers, dim, heads, mlp_dim = model
  decoder = Decoder(
    layers, dim, heads, mlp_dim, position='relative', norm='rms', gated=True, init_std=None
  )
  lm = LanguageModel(Learned(VOCAB, dim), decoder)
  init_fn, loss_fn = next_token(lm)
  ids = np.random.default_rng(0).integers(0, VOCAB, (ROWS, length))
  batch, key = pipeline.batch_from_ids(ids, VOCAB), jax.random.key(0)
  variables = jax.jit(init_fn)(key, batch)
  step = jax.jit(jax.grad(lambda variables: loss_fn(variables, batch, key)[0].mean()))
  times = time_calls(lambda: step(variables), repeats).wall
  return ROWS * length / statistics.median(times), 3 * describe_model(lm, length).flops
