# SPDX-License-Identifier: Apache-2.0
"""How well found places in a text, such as beginnings of chunks, agree with wanted places."""

import numpy as np


def word_starts(text: bytes) -> np.ndarray:
  """Bool [n]: whether each byte begins a word, of letters, digits and bytes above 0x7F."""
  inside = np.array([byte >= 0x80 or bytes([byte]).isalnum() for byte in text], bool)
  return inside & ~np.concatenate([[False], inside[:-1]])


def f1(found: np.ndarray, wanted: np.ndarray) -> float:
  """2 |both| / (|found| + |wanted|) of bool arrays of one shape; 0 where both are empty."""
  return float(2 * (found & wanted).sum() / max(1, found.sum() + wanted.sum()))


def chance_f1(found: np.ndarray, wanted: np.ndarray) -> float:
  """What `f1` is on average if as many places are found at random."""
  rate, wanted_rate = found.mean(), wanted.mean()
  return float(2 * rate * wanted_rate / max(rate + wanted_rate, 1e-12))
