# SPDX-License-Identifier: Apache-2.0
"""Codes of known texts in one forward pass, at a fraction of the cost of stepping the byte model.

The model sees the same context as the stepper. Floats of another shape differ by rounding, so
occasionally a stream differs from the codec's in some bits, and cannot be decoded. For training and
measurement these streams are equivalent.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from lib.compression.byte_model import BATCH_TOKENS, BOS, ByteModel, Sizes, exact, make
from lib.compression.byte_stepper import ByteStepper
from lib.models.decoder import LanguageModel
from lib.tokenizers.base import Coded, Tokenizer
from lib.tokenizers.coding import arithmetic, slices
from lib.tokenizers.coding.baselines import ended, token_lengths
from lib.tokenizers.coding.stepping import Stepped
from lib.tokenizers.coding.window_streams import SteppedEqualInfo

SIDE_BY_SIDE = 1024  # documents that are coded at once


def can_read_ahead(tokenizer: Tokenizer) -> bool:
  """Whether `encode` supports this tokenizer, which steps a `ByteModel`."""
  return isinstance(tokenizer, Stepped) and isinstance(tokenizer.stepper, ByteStepper)


def encode(tokenizer: Tokenizer, documents: Sequence[bytes]) -> list[Coded]:
  """Each document as tokens of a codec that `can_read_ahead`."""
  assert isinstance(tokenizer, Stepped)
  assert isinstance(tokenizer.stepper, ByteStepper)
  model = tokenizer.stepper.model
  if not isinstance(tokenizer, SteppedEqualInfo):
    return encode_all(model, documents, tokenizer.token_bits)
  coded: list[Coded] = []
  for begin in range(0, len(documents), SIDE_BY_SIDE):
    part = documents[begin : begin + SIDE_BY_SIDE]
    stepper = TeacherForcedStepper(model, part, tokenizer.bits // 2)
    codec = SteppedEqualInfo(
      stepper, model.fingerprint, tokenizer.bits, tokenizer.mode, tokenizer.token_bits
    )
    coded += codec.cover_batch(part)
  return coded


def encode_all(model: ByteModel, documents: Sequence[bytes], token_bits: int) -> list[Coded]:
  """Each document as an AC stream in tokens of `token_bits`; see `SteppedAC`."""
  coded = []
  for document, rows in zip(documents, probabilities(model, documents), strict=True):
    symbols, cumulative = ended(document), arithmetic.quantise(rows, marks=1)
    ids = slices.of_code(*arithmetic.encode(symbols, cumulative), token_bits)
    places = arithmetic.places(symbols, cumulative)[:-1]
    lengths = token_lengths(places, token_bits, ids.size)
    coded.append(Coded(ids, lengths, len(document), zlib.crc32(document)))
  return coded


def probabilities(model: ByteModel, documents: Sequence[bytes]) -> Iterator[np.ndarray]:
  """Next-byte probabilities after 0, 1, … all bytes of each document, float32 [n + 1, 256]."""
  longest = max(map(len, documents), default=0)
  width = min(longest + 1, model.sizes.context)
  rows = max(BATCH_TOKENS // width, 8)
  waiting = [context_spans(model, len(document)) for document in documents]
  given = _read_all(model, documents, waiting, width, rows)
  for parts in waiting:
    yield np.concatenate([next(given)[visible : visible + count] for _, visible, count in parts])


class TeacherForcedStepper:
  """A `Stepper` of known texts, which computes the next probabilities in one pass for many texts.

  For coders that reset the byte model within its context and give text i to stream i, as `drive`
  does if the numbers of streams and texts are equal.

  Args:
    model: the byte model.
    documents: the texts.
    ahead: bytes of a pass.
  """

  def __init__(self, model: ByteModel, documents: Sequence[bytes], ahead: int):
    self.model, self.streams = model, len(documents)
    self._data = np.zeros((self.streams, max(map(len, documents), default=0) + 1), np.uint8)
    for row, document in zip(self._data, documents):
      row[: len(document)] = np.frombuffer(document, np.uint8)
    self._ahead = min(ahead, model.sizes.context - 1)
    self._rows = np.zeros((self.streams, self._ahead + 1, 256), np.float32)
    self._place = np.zeros(self.streams, np.int64)  # bytes of the text that were appended
    self._begin = np.zeros(self.streams, np.int64)  # the first byte that the byte model sees

  def start(self) -> np.ndarray:
    """Next-byte probabilities of the empty text, float32 [256]."""
    return self.model.start

  def reset(self, which: np.ndarray) -> None:
    """Forgets the texts where `which` [N] is true: they are empty again."""
    self._begin[which] = self._place[which]

  def step(self, symbols: np.ndarray) -> np.ndarray:
    """Moves on by one byte in each text; next-byte probabilities, float32 [N, 256]."""
    fresh = np.flatnonzero(self._begin == self._place)
    self._place = np.minimum(self._place + 1, self._data.shape[1])
    visible = self._place - self._begin
    self._read_ahead(fresh)
    given = self._rows[np.arange(self.streams), np.minimum(visible, self._ahead)]
    far = np.flatnonzero(visible > self._ahead)
    if far.size:
      texts = [self._data[i, self._begin[i] : self._place[i]] for i in far]
      prefixes = np.zeros((far.size, max(map(len, texts))), np.uint8)
      for row, text in zip(prefixes, texts):
        row[: text.size] = text
      given[far] = self.model(prefixes, visible[far].astype(np.int32))
    return given

  def _read_ahead(self, fresh: np.ndarray) -> None:
    """Probabilities after each of the next bytes of the texts `fresh` [n]."""
    together = max(BATCH_TOKENS // (self._ahead + 1), 8)
    offsets = np.arange(self._ahead)
    for begin in range(0, fresh.size, together):
      which = fresh[begin : begin + together]
      ids = np.zeros((together, self._ahead + 1), np.int32)
      ids[:, 0] = BOS
      places = np.minimum(self._begin[which, None] + offsets, self._data.shape[1] - 1)
      ids[: which.size, 1:] = self._data[which[:, None], places]
      given = np.asarray(_all(self.model.sizes, self.model.on_device, ids))
      self._rows[which] = given[: which.size]


def context_spans(model: ByteModel, size: int) -> list[tuple[int, int, int]]:
  """The spans of `size` bytes that the byte model reads: (first byte, visible bytes at first,
  number of lengths).
  """
  found: list[tuple[int, int, int]] = []
  length = 0
  while length <= size:
    visible = int(model.visible_bytes(np.array([length]))[0])
    count = min(model.sizes.context - visible, size + 1 - length)
    found.append((length - visible, visible, count))
    length += count
  return found


def _read_all(
  model: ByteModel,
  documents: Sequence[bytes],
  waiting: Sequence[list[tuple[int, int, int]]],
  width: int,
  rows: int,
) -> Iterator[np.ndarray]:
  """Probabilities [width, 256] of each span, `rows` spans at once."""
  jobs = [(i, first, visible + count - 1) for i, parts in enumerate(waiting)
          for first, visible, count in parts]  # fmt: skip
  for begin in range(0, len(jobs), rows):
    ids = np.zeros((rows, width), np.int32)
    ids[:, 0] = BOS
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
