# SPDX-License-Identifier: Apache-2.0
"""Toy byte models M1 of plain numpy: n-grams with back-off, and what breaks careless coders."""

import _pydecimal
import functools
import pathlib
from collections.abc import Callable

import numpy as np


class NGram:
  """Counts after each context of up to `order` bytes, mixed with those of shorter contexts.

  Probabilities of order k are (counts + w * those of order k - 1) / (total + w), w the number of
  distinct next bytes (Witten and Bell).
  """

  def __init__(self, text: bytes, order: int):
    self.order = order
    self.counts: list[dict[bytes, np.ndarray]] = [{} for _ in range(order + 1)]
    for k in range(order + 1):
      following: dict[bytes, list[int]] = {}
      for i in range(k, len(text)):
        following.setdefault(text[i - k : i], []).append(text[i])
      for context, symbols in following.items():
        self.counts[k][context] = np.array(symbols, np.uint8)
    self.after = functools.lru_cache(2**14)(self._after)

  def _after(self, context: bytes) -> np.ndarray:
    mixed = np.full(256, 1 / 256)
    for k in range(len(context) + 1):
      symbols = self.counts[k].get(context[len(context) - k :])
      if symbols is not None:
        seen = np.bincount(symbols, minlength=256)
        distinct = np.count_nonzero(seen)
        mixed = (seen + distinct * mixed) / (symbols.size + distinct)
    return mixed.astype(np.float32)

  def __call__(self, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.stack(
      [
        self.after(prefix[max(n - self.order, 0) : n].tobytes())
        for prefix, n in zip(prefixes, lengths, strict=True)
      ]
    )


class Uniform:
  """Every byte is as likely: intervals are dyadic, so no code straddles a boundary."""

  def __call__(self, prefixes, lengths):
    return np.full((len(lengths), 256), 1 / 256, np.float32)


@functools.cache  # all modes of a table ask for the same rows
def _random_row(seed: int, concentration: float, text: bytes) -> np.ndarray:
  rng = np.random.default_rng([seed, *text])
  return rng.dirichlet(np.full(256, concentration)).astype(np.float32)


class Random:
  """Any probabilities, drawn anew for each text by its hash: peaked, flat, with zeros."""

  def __init__(self, seed: int, concentration: float):
    self.seed, self.concentration = seed, concentration

  def __call__(self, prefixes, lengths):
    texts = [prefix[:n].tobytes() for prefix, n in zip(prefixes, lengths, strict=True)]
    return np.stack([_random_row(self.seed, self.concentration, text) for text in texts])


class Stepping:
  """A next-byte function as a stepper that keeps the whole text."""

  def __init__(self, model: Callable, streams: int):
    self.model, self.streams = model, streams
    self.texts = [b''] * streams

  def start(self):
    return self.model(np.zeros((1, 1), np.uint8), np.zeros(1, np.int32))[0]

  def reset(self, which):
    self.texts = [b'' if w else text for text, w in zip(self.texts, which, strict=True)]

  def step(self, symbols):
    self.texts = [text + bytes([s]) for text, s in zip(self.texts, symbols, strict=True)]
    lengths = np.array([len(text) for text in self.texts], np.int32)
    prefixes = np.zeros((self.streams, lengths.max()), np.uint8)
    for row, text in zip(prefixes, self.texts, strict=True):
      row[: len(text)] = np.frombuffer(text, np.uint8)
    return self.model(prefixes, lengths)


@functools.cache
def sources() -> bytes:
  """Text that every machine has and no commit changes: a module of Python's own library."""
  return pathlib.Path(_pydecimal.__file__).read_bytes()


@functools.cache
def ngram(order: int = 3) -> NGram:
  """Counts of the first 100,000 bytes of `sources`; the rest is held out."""
  return NGram(sources()[:100_000], order)


def held_out() -> bytes:
  return sources()[100_000:]
