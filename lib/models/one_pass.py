# SPDX-License-Identifier: Apache-2.0
"""AC streams of known texts without stepping M1: all of a text's probabilities in a few passes.

They follow the stepper's rule of what M1 has in view, but floats of another shape differ by
rounding, so now and then a stream is not the codec's to the bit, and no decoder can follow it. As
text to learn from or to be measured they are as good, and they cost a fraction.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from lib.models.byte_model import BEGIN, TOGETHER, ByteModel, Sizes, exact, make
from lib.models.decoder import LanguageModel
from lib.tokenizers.coding import arithmetic, slices
from lib.tokenizers.coding.baselines import END, token_lengths
from lib.tokenizers.coding.stepping import Coded


def encode_all(model: ByteModel, documents: Sequence[bytes], token_bits: int) -> list[Coded]:
  """Each document as an AC stream in tokens of `token_bits`; see `SteppedAC`."""
  coded = []
  for document, rows in zip(documents, probabilities(model, documents), strict=True):
    symbols = np.append(np.frombuffer(document, np.uint8).astype(np.uint16), np.uint16(END))
    cumulative = arithmetic.quantise(rows, marks=1)
    stream, bits = arithmetic.encode(symbols, cumulative)
    count = -(-bits // token_bits)
    ids = slices.unpack(np.frombuffer(stream, np.uint8), token_bits)[:count]
    places = arithmetic.places(symbols, cumulative)[:-1]
    lengths = token_lengths(places, token_bits, count)
    coded.append(Coded(ids, lengths, len(document), zlib.crc32(document)))
  return coded


def probabilities(model: ByteModel, documents: Sequence[bytes]) -> Iterator[np.ndarray]:
  """Next-byte probabilities after 0, 1, … all bytes of each document, float32 [n + 1, 256]."""
  longest = max(map(len, documents), default=0)
  width = min(longest + 1, model.sizes.context)
  rows = max(TOGETHER // width, 8)
  waiting = [views(model, len(document)) for document in documents]
  given = _read_all(model, documents, waiting, width, rows)
  for parts in waiting:
    yield np.concatenate([next(given)[held : held + count] for _, held, count in parts])


def views(model: ByteModel, size: int) -> list[tuple[int, int, int]]:
  """What M1 reads of `size` bytes: (first byte, bytes in view at first, how many lengths)."""
  found: list[tuple[int, int, int]] = []
  length = 0
  while length <= size:
    held = int(model.held(np.array([length]))[0])
    count = min(model.sizes.context - held, size + 1 - length)
    found.append((length - held, held, count))
    length += count
  return found


def _read_all(
  model: ByteModel,
  documents: Sequence[bytes],
  waiting: Sequence[list[tuple[int, int, int]]],
  width: int,
  rows: int,
) -> Iterator[np.ndarray]:
  """Probabilities [width, 256] of each view, `rows` of them read at once."""
  jobs = [(i, first, held + count - 1) for i, parts in enumerate(waiting)
          for first, held, count in parts]  # fmt: skip
  for begin in range(0, len(jobs), rows):
    ids = np.zeros((rows, width), np.int32)
    ids[:, 0] = BEGIN
    part = jobs[begin : begin + rows]
    for row, (i, first, size) in zip(ids, part):
      row[1 : size + 1] = np.frombuffer(documents[i], np.uint8)[first : first + size]
    yield from np.asarray(_all(model.sizes, model.on_device, ids))[: len(part)]


@exact
def _all(sizes: Sizes, variables: Any, ids: jax.Array) -> jax.Array:
  """Probabilities [N, T, 256] after each place of ids [N, T]."""

  def read(model: LanguageModel) -> jax.Array:
    places = jnp.broadcast_to(jnp.arange(ids.shape[1])[None], ids.shape)
    batch = {'inputs': ids, 'positions': places, 'segments': jnp.ones_like(ids)}
    return model.embedding.logits(model.hidden(batch, None)[0], None)

  return jax.nn.softmax(cast(jax.Array, make(sizes).apply(variables, method=read)))
