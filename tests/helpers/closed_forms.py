# SPDX-License-Identifier: Apache-2.0
"""Closed forms of switching sources, derived apart from the library's general machinery.

Losses are in nats per character. A switching source of order k interleaves k independent binary
chains with P(1|0) = p and P(0|1) = q, so that each position pays either h(pi) or H.
"""

import math


def binary_entropy(x: float) -> float:
  """h(x) = -x ln x - (1-x) ln(1-x), in nats; h(0) = h(1) = 0."""
  return sum(-y * math.log(y) for y in (x, 1 - x) if y > 0)


def switching_unigram(p: float, q: float) -> float:
  """h(pi) with pi = p/(p+q): the loss of every character model whose context is below k."""
  return binary_entropy(p / (p + q))


def switching_entropy_rate(p: float, q: float) -> float:
  """H = [q h(p) + p h(q)] / (p+q), the same at every order."""
  return (q * binary_entropy(p) + p * binary_entropy(q)) / (p + q)


def switching_ngram(p: float, q: float, order: int, context: int) -> float:
  """h(pi) if context < order else H: the loss of the best character model with that context."""
  return switching_unigram(p, q) if context < order else switching_entropy_rate(p, q)


def switching_block(p: float, q: float, order: int, length: int) -> float:
  """[min(r,k) h(pi) + max(r-k,0) H] / r: the best unigram over blocks of r = `length` characters.

  Also the floor of any predictor on a fresh window of r characters: H + k (h(pi) - H) / r, r >= k.
  """
  opening = min(length, order)
  unigram, rate = switching_unigram(p, q), switching_entropy_rate(p, q)
  return (opening * unigram + (length - opening) * rate) / length
