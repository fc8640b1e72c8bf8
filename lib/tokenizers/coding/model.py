# SPDX-License-Identifier: Apache-2.0
"""The interface of a coder's byte model: two functions, so that no model is imported here.

Encoder and decoder must see the same probabilities. A model's result for a text may depend on that
text alone, not on its row, the other rows or the number of rows: with floats this needs one fixed
shape and one code path. A table is computed once and stored, so it needs this only when computed.
"""

from typing import Protocol

import numpy as np


class NextByte(Protocol):
  """Next-byte probabilities of many short texts at once."""

  def __call__(self, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """After each text: float32 [N, 256].

    Args:
      prefixes: uint8 [N, L], the texts; 0 beyond a text's length.
      lengths: int32 [N], 0 for the empty text.
    """
    ...


class Stepper(Protocol):
  """A fixed number of texts in parallel, read byte by byte.

  Attributes:
    streams: N.
  """

  streams: int

  def start(self) -> np.ndarray:
    """Next-byte probabilities of the empty text, float32 [256]."""
    ...

  def reset(self, which: np.ndarray) -> None:
    """Forgets the texts where `which` [N] is true: they are empty again."""
    ...

  def step(self, symbols: np.ndarray) -> np.ndarray:
    """Appends one byte to each text, uint8 [N]; next-byte probabilities, float32 [N, 256]."""
    ...


class MemoizedModel:
  """A `NextByte` that stores its results, 1 kB per text: the tables of one byte model have common
  texts.

  Args:
    model: the byte model; it reads each text once.
  """

  def __init__(self, model: NextByte):
    self._model = model
    self._rows: dict[bytes, np.ndarray] = {}

  def __call__(self, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """After each text: float32 [N, 256]; see `NextByte`."""
    texts = [row[:n].tobytes() for row, n in zip(prefixes, lengths.tolist())]
    places = {text: i for i, text in enumerate(texts) if text not in self._rows}
    if places:
      where = np.fromiter(places.values(), int)
      self._rows.update(zip(places, self._model(prefixes[where], lengths[where])))
    return np.stack([self._rows[text] for text in texts])
