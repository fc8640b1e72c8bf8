# SPDX-License-Identifier: Apache-2.0
"""Codecs that step M1: many texts in parallel, compared with Python loops over one text."""

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from experiments.tools.timing import time_calls
from lib.compression.byte_model import BOS, ByteModel, probabilities_at
from lib.compression.byte_stepper import ByteStepper
from lib.report.results import Row
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.stepping import Stepped
from lib.tokenizers.coding.window_streams import SteppedEqualInfo

DOCUMENT = 256  # bytes of the documents that are coded in parallel
LOOP, UNCACHED = 200, 100  # bytes that the loops code


def table(
  stepped: dict[str, Stepped], text: bytes, streams: int, repeats: int
) -> Iterator[list[Row]]:
  """The rows of each codec."""
  documents = [text[i * DOCUMENT :][:DOCUMENT] for i in range(streams)]
  size = sum(map(len, documents))
  for method, codec in stepped.items():
    assert isinstance(codec.stepper, ByteStepper)
    model = codec.stepper.model
    wider = ByteModel(dataclasses.replace(model.sizes, streams=streams), model.variables)
    codec.stepper = ByteStepper(wider)
    row = dict(method=method, streams=streams)
    encoding, coded = _rate(row, lambda: codec.cover_batch(documents), 'encode', size, repeats)
    ids = [document.ids for document in coded]
    decoding, back = _rate(row, lambda: codec.decode_all(ids), 'decode', size, repeats)
    if [data for data, _ in back] != documents and codec.lossless:
      raise RuntimeError(f'{method} does not give the documents back')
    tokens = sum(map(len, ids))
    rows = [encoding, decoding, Row('steps', row, 'bytes_per_token', size / tokens, unit='bytes')]
    if isinstance(codec, SteppedEqualInfo):
      rows += _loops(codec, model, method, text, encoding.measured or 0, repeats)
    yield rows


def _rate(
  row: Mapping[str, Any], work: Callable[[], Any], column: str, size: int, repeats: int
) -> tuple[Row, Any]:
  """Kilobytes (10³ bytes) a second of work on `size` bytes on all cores, and what it returned."""
  timing = time_calls(work, repeats)
  rate = size / statistics.median(timing.wall) / 1e3
  return Row('steps', row, f'{column}_kb_per_s', rate, unit='kB/s'), timing.result


def _loops(codec, model, method, text, rate, repeats) -> list[Row]:
  """Both loops on a text of their own length, and how many times slower they are."""
  alone = ByteStepper(ByteModel(dataclasses.replace(model.sizes, streams=1), model.variables))
  rows: list[Row] = []
  for kind, size, following in (
    ('with a cache', LOOP, lambda window: _cached(alone, window)),
    ('without a cache', UNCACHED, lambda window: _uncached(model, window)),
  ):
    row = dict(method=f'{method}: Python loop {kind}')
    encoding, windows = _rate(
      row, lambda: loop(following, text[:size], codec.bits), 'encode', size, repeats
    )
    tokens = windows * codec.bits / codec.token_bits
    slower = rate / (encoding.measured or np.nan)
    rows += [
      encoding,
      Row('steps', row, 'bytes_per_token', size / tokens, unit='bytes'),
      Row('steps', row, 'times_slower', slower, note='than the codec, encoding'),
    ]
  return rows


def loop(following: Callable[[bytes], np.ndarray], text: bytes, bits: int) -> int:
  """A straightforward loop for greedy windows; returns their number.

  Args:
    following: M1's probabilities after the bytes of the window so far.
    text: to be coded.
    bits: bits of a window.
  """
  windows, begin = 0, 0
  while begin < len(text):
    low, width, scale, place = 0, 1, 0, begin  # [low, low + width) / 2^scale, exactly
    while place < len(text):
      cumulative = arithmetic.quantise(following(text[begin:place])[None])[0]
      start, stop = (int(cumulative[text[place] + i]) for i in (0, 1))
      scale += arithmetic.PRECISION
      inner = (low << arithmetic.PRECISION) + width * start, width * (stop - start)
      if not _fits(*inner, scale - bits):
        break
      (low, width), place = inner, place + 1
    windows, begin = windows + 1, place
  return windows


def _fits(low: int, width: int, shift: int) -> bool:
  """Whether [low, low + width) encloses a cell of 2^shift."""
  if shift <= 0:
    return width > 0
  return (-(-low >> shift) + 1) << shift <= low + width


def _cached(stepper: ByteStepper, window: bytes) -> np.ndarray:
  if not window:
    stepper.reset(np.ones(1, bool))
    return stepper.start()
  return stepper.step(np.frombuffer(window[-1:], np.uint8))[0]


def _uncached(model: ByteModel, window: bytes) -> np.ndarray:
  """M1 on the whole window, padded to a power of two."""
  room = max(1 << len(window).bit_length(), 8)
  ids = np.full((1, room), BOS, np.int32)
  ids[0, 1 : len(window) + 1] = np.frombuffer(window, np.uint8)
  return np.asarray(
    probabilities_at(model.sizes, model.on_device, ids, np.array([len(window)], np.int32))
  )[0]
