# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours of tokens: by form, and of words by word class.

Form can be read from rows of pictures alone. The class of a word, such as preposition or numeral,
is not visible in its letters: so it is measured among words of one form, that is lower-case words
  of
nearly equal length.

Legend: N tokens, W words, D width.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lib.data.word_classes import word_classes
from lib.glyphs.pixel_rows import unit
from lib.tokenizers.base import Tokenizer

NEAREST = 3  # neighbours whose word classes are compared with the word's
LONGER = 1  # largest difference in length of words of one form
Batches = Sequence[Mapping[str, np.ndarray]]
Hidden = Callable[[Mapping[str, np.ndarray]], np.ndarray]  # batch -> final hidden vectors [B, T, D]


def frequent(batches: Batches, vocab_size: int, most: int) -> np.ndarray:
  """The most frequent input tokens, ascending; each occurs."""
  counts = np.zeros(vocab_size + 1, np.int64)
  for batch in batches:
    counts += np.bincount(batch['inputs'][batch['segments'] > 0], minlength=vocab_size + 1)
  order = np.argsort(-counts[:vocab_size], kind='stable')[:most]
  return np.sort(order[counts[order] > 0])


def token_states(batches: Batches, ids: np.ndarray, hidden: Hidden) -> np.ndarray:
  """Mean final hidden vectors [N, D] after each of some tokens, less the mean of all."""
  total, counts = 0.0, np.zeros(ids.size)
  for batch in batches:
    vectors = np.asarray(hidden(batch), np.float32)
    real = batch['segments'] > 0
    is_token = (batch['inputs'][real][:, None] == ids[None]).astype(np.float32)
    total = total + is_token.T @ vectors[real]
    counts += is_token.sum(axis=0)
  means = total / counts[:, None]
  return means - means.mean(axis=0, keepdims=True)


def judge(vectors: np.ndarray, alike: np.ndarray, written: Sequence[str]) -> dict[str, np.ndarray]:
  """How similar each token is to its nearest neighbour, by picture and by form.

  Args:
    vectors: [N, D], the space of the neighbours.
    alike: [N, N], the similarity of the pictures of two tokens.
    written: the tokens.

  Returns:
    column -> a value for each token; `case_pair` only for letters whose other case is among them.
  """
  near = unit(vectors) @ unit(vectors).T
  np.fill_diagonal(near, -np.inf)
  nearest = near.argmax(axis=1)
  same = [form(one) == form(written[i]) for one, i in zip(written, nearest, strict=True)]
  paired = [written[i] == written[one].swapcase() for one, i in enumerate(nearest)]
  of_pairs = np.array(paired, float)[_paired(written)]
  return {
    'alike': alike[np.arange(len(nearest)), nearest],
    'same_form': np.array(same, float),
  } | ({'case_pair': of_pairs} if of_pairs.size else {})


def chance(alike: np.ndarray, written: Sequence[str]) -> dict[str, float]:
  """The expectation of `judge` for random neighbours: exact means over all pairs."""
  forms = np.array([form(one) for one in written])
  others = ~np.eye(len(written), dtype=bool)
  return {
    'alike': float(alike[others].mean()),
    'same_form': float((forms[:, None] == forms[None])[others].mean()),
  } | ({'case_pair': 1 / (len(written) - 1)} if _paired(written).any() else {})


def _paired(written: Sequence[str]) -> np.ndarray:
  """Which tokens have another case among them, bool [N]."""
  return np.array([one.swapcase() != one and one.swapcase() in written for one in written])


def form(written: str) -> str:
  """The Unicode categories of a token's characters, such as Lu or LlLl."""
  return ''.join(unicodedata.category(character) for character in written)


def plane(vectors: np.ndarray) -> np.ndarray:
  """The first two principal components [N, 2] of unit vectors."""
  centred = unit(vectors) - unit(vectors).mean(axis=0)
  left, scale, _ = np.linalg.svd(centred, full_matrices=False)
  return left[:, :2] * scale[:2]


class Words(NamedTuple):
  """Words that are one token each.

  Attributes:
    written: W words in lower case.
    ids: [W], their tokens.
    classes: [W], the class of each, as a number.
  """

  written: list[str]
  ids: np.ndarray
  classes: np.ndarray

  @property
  def comparable(self) -> np.ndarray:
    """Which pairs of different words are nearly equal in length, bool [W, W]."""
    lengths = np.array([len(word) for word in self.written])
    near = abs(lengths[:, None] - lengths[None]) <= LONGER
    return near & ~np.eye(len(lengths), dtype=bool)

  @property
  def chance(self) -> float:
    """The mean share of a word's class among all words of its form."""
    counts = self.comparable.sum(axis=1)
    same = ((self.classes[:, None] == self.classes[None]) & self.comparable).sum(axis=1)
    return float((same[counts > 0] / counts[counts > 0]).mean())

  def agreement(self, vectors: np.ndarray) -> np.ndarray:
    """For each word the share of its nearest neighbours of one form that are of its class, [W]."""
    near = np.where(self.comparable, cosines(vectors), -np.inf)
    nearest = np.argsort(-near, axis=1, kind='stable')[:, :NEAREST]
    there = np.isfinite(np.take_along_axis(near, nearest, axis=1))
    same = (self.classes[nearest] == self.classes[:, None]) & there
    return same.sum(axis=1) / np.maximum(there.sum(axis=1), 1)


def known_words(tokenizer: Tokenizer, batches: Batches, at_least: int) -> Words:
  """Words of the closed classes that are one token and occur as whole words `at_least` times."""
  classes = word_classes()
  encoded = {word: tokenizer.encode(word.encode()) for word in classes}
  single = {word: int(ids[0]) for word, ids in encoded.items() if len(ids) == 1}
  ids = np.array(list(single.values()), np.int64)
  counts = sum(found.sum(axis=0) for _, found in occurrences(tokenizer, batches, ids))
  kept = [word for word, count in zip(single, counts, strict=True) if count >= at_least]
  names = sorted(set(classes.values()))
  return Words(
    kept,
    np.array([single[word] for word in kept], np.int64),
    np.array([names.index(classes[word]) for word in kept], np.int64),
  )


def occurrences(
  tokenizer: Tokenizer, batches: Batches, ids: np.ndarray
) -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray]]:
  """The places of whole words before a space in each batch, and the words.

  A word is whole if no letter, digit or underscore precedes it.

  Yields:
    (rows [K] and columns [K] of the places, bool [K, W] which of the words `ids` each is).
  """
  pieces = [tokenizer.token_bytes(i) or b'' for i in range(tokenizer.vocab_size)]
  joins = np.array([re.search(rb'[\w\x80-\xff]$', one) is not None for one in pieces] + [False])
  space = int(tokenizer.encode(b' ')[0])
  for batch in batches:
    inputs, real = batch['inputs'], batch['segments'] > 0
    whole = np.zeros(inputs.shape, bool)
    whole[:, 1:-1] = ~joins[inputs[:, :-2]] & (inputs[:, 2:] == space) & real[:, 2:]
    places = np.nonzero(whole & np.isin(inputs, ids))
    yield places, inputs[places][:, None] == ids[None]


def word_states(tokenizer: Tokenizer, batches: Batches, words: Words, hidden: Hidden) -> np.ndarray:
  """Mean final hidden vectors [W, D] after each word and its space: they predict the next word."""
  total, counts = 0.0, np.zeros(len(words.ids))
  found = occurrences(tokenizer, batches, words.ids)
  for batch, ((row, column), is_word) in zip(batches, found, strict=True):
    vectors = np.asarray(hidden(batch), np.float64)
    total = total + is_word.T.astype(float) @ vectors[row, column + 1]
    counts += is_word.sum(axis=0)
  return total / counts[:, None]


def cosines(vectors: np.ndarray) -> np.ndarray:
  """Cosines [W, W] of vectors less their mean."""
  centred = unit(np.asarray(vectors, np.float64) - np.mean(vectors, axis=0, dtype=np.float64))
  return centred @ centred.T


def similarity(one: np.ndarray, other: np.ndarray) -> float:
  """Correlation over all pairs of words of their cosines in one space and in another."""
  pairs = np.triu_indices(len(one), 1)
  return float(np.corrcoef(cosines(one)[pairs], cosines(other)[pairs])[0, 1])


def noisy(rows: np.ndarray, target: float, seed: int) -> np.ndarray:
  """Rows with Gaussian noise whose `similarity` to the rows is `target`, or as close as possible.

  A control: as far from the rows as a space of that similarity, in a meaningless direction.
  """
  noise = np.std(rows) * np.random.default_rng(seed).standard_normal(rows.shape)
  low, high = -10.0, 10.0  # the logarithm of the noise's scale
  for _ in range(40):
    middle = (low + high) / 2
    if similarity(rows, rows + np.exp(middle) * noise) > target:
      low = middle
    else:
      high = middle
  return rows + np.exp(high) * noise
