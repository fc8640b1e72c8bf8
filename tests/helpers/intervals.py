# SPDX-License-Identifier: Apache-2.0
"""Intervals of texts in big integers and fractions: what the compiled coder must agree with."""

from fractions import Fraction


def rounded(rows, symbols):
  """The definition in big integers: (low, width, bits), low in units of 2^-(32 + bits)."""
  low, width, bits = 0, 2**32, 0
  for row, symbol in zip(rows, symbols, strict=True):
    start, stop = (width * int(row[s]) // int(row[-1]) for s in (symbol, symbol + 1))
    low, width = low + start, stop - start
    more = 33 - width.bit_length()
    low, width, bits = low << more, width << more, bits + more
  return low, width, bits


def shortest_enclosed(low: Fraction, high: Fraction):
  """(v, n) of the shortest [v, v + 1) / 2^n within [low, high), the leftmost; by trying."""
  n = 0
  while True:
    v = -(-low * 2**n // 1)
    if Fraction(v + 1, 2**n) <= high:
      return int(v), n
    n += 1
