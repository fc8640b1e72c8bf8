# SPDX-License-Identifier: Apache-2.0
"""What a coder asks of its byte model M1: two functions, so that no model is imported here.

Encoder and decoder must see the same probabilities. What a model gives for a text may depend on
that text alone, not on its row, the other rows or the number of rows: with floats that means one
fixed shape and one code path. Tables are made once and kept, so they only need it while made.
"""

from typing import Protocol

import numpy as np


class NextByte(Protocol):
  """Next-byte probabilities of many short texts at once."""

  def __call__(self, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """After each text: float32 [N, 256].

    Args:
      prefixes: uint8 [N, L], the texts from their begin; what is beyond a text's length is 0.
      lengths: int32 [N], 0 for the empty text.
    """
    ...


class Stepper(Protocol):
  """A fixed number of texts side by side, read byte by byte with whatever cache that takes.

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
  """A `NextByte` that keeps what it gave, a kilobyte a text: tables of one M1 ask much the same.

  Args:
    model: M1, which sees each text once.
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
