# SPDX-License-Identifier: Apache-2.0
"""How well found places in a text, such as beginnings of chunks, agree with wanted places."""

import numpy as np


def word_starts(text: bytes) -> np.ndarray:
  """Bool [n]: whether each byte begins a word, of letters, digits and bytes above 0x7F."""
  inside = np.array([byte >= 0x80 or bytes([byte]).isalnum() for byte in text], bool)
  return inside & ~np.concatenate([[False], inside[:-1]])


def moved(found: np.ndarray, words: np.ndarray) -> np.ndarray:
  """Places [..., n], those at the byte just before a word moved to its first byte."""
  before = np.concatenate([words[..., 1:], np.zeros_like(words[..., :1])], axis=-1)
  shifted = np.zeros_like(found)
  shifted[..., 1:] = (found & before)[..., :-1]
  return (found & ~before) | shifted


def f1(found: np.ndarray, wanted: np.ndarray) -> float:
  """2 |both| / (|found| + |wanted|) of bool arrays of one shape; 0 where both are empty."""
  return float(2 * (found & wanted).sum() / max(1, found.sum() + wanted.sum()))


def chance_f1(rate: float, wanted: np.ndarray) -> float:
  """What `f1` of moved places is if each place is found at random with a probability."""
  hits = 1 - (1 - rate) ** 2  # the first byte of a word, or the byte before
  words = wanted.mean()
  found = rate + words * (hits - 2 * rate)
  return float(2 * words * hits / max(found + words, 1e-12))
