# SPDX-License-Identifier: Apache-2.0
"""A stream of bits as tokens of 8, 12 or 16 bits: consecutive slices, first bit highest."""

import numpy as np

from lib.errors import InputError

WIDTHS = (8, 12, 16)


def check(token_bits: int, window_bits: int | None = None) -> int:
  """Returns `token_bits`; raises InputError for another width, or one wider than a window."""
  if token_bits not in WIDTHS:
    raise InputError(f'tokens of {token_bits} bits: use one of {WIDTHS}')
  if window_bits is not None and token_bits > window_bits:
    raise InputError(
      f'tokens of {token_bits} bits do not fit into windows of {window_bits}: use narrower tokens'
    )
  return token_bits


def bits_of(vocab_size: int) -> int:
  """log2 of `vocab_size`; raises InputError unless that is a width of tokens."""
  sizes = {1 << bits: bits for bits in WIDTHS}
  if vocab_size not in sizes:
    raise InputError(f'{vocab_size} ids for slices of a stream: use one of {tuple(sizes)}')
  return sizes[vocab_size]


def pack(values: np.ndarray, bits: int) -> np.ndarray:
  """Values of 8, 12 or 16 bits end to end, uint8 [bytes]; zero bits fill the last byte."""
  if bits == 8:
    return values.astype(np.uint8)
  if bits == 16:
    return values.astype('>u2').view(np.uint8)
  pairs = np.pad(values, (0, values.size % 2)).reshape(-1, 2)
  out = np.empty((len(pairs), 3), np.uint8)
  out[:, 0] = pairs[:, 0] >> 4
  out[:, 1] = (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8
  out[:, 2] = pairs[:, 1] & 255
  return out.reshape(-1)[: (values.size * 12 + 7) // 8]


def unpack(stream: np.ndarray, bits: int) -> np.ndarray:
  """Cuts uint8 [bytes] into values of 8, 12 or 16 bits, int32 [n]; zero bits fill the last."""
  if bits == 8:
    return stream.astype(np.int32)
  count = -(-stream.size * 8 // bits)
  filled = np.pad(stream, (0, -stream.size % {12: 3, 16: 2}[bits]))
  if bits == 16:
    return filled.view('>u2').astype(np.int32)
  first, middle, last = filled.reshape(-1, 3).astype(np.int32).T
  return np.stack([first << 4 | middle >> 4, (middle & 15) << 8 | last], axis=1).reshape(-1)[:count]


def sliced(ids: np.ndarray, bits: int, other: int) -> np.ndarray:
  """Values of `bits` as those of the same stream in slices of `other` bits, int32 [n]."""
  return unpack(pack(ids, bits), other)[: -(-ids.size * bits // other)]


def of_code(code: bytes, size: int, bits: int) -> np.ndarray:
  """The first `size` bits of a code as values of 8, 12 or 16 bits, int32 [n]."""
  return unpack(np.frombuffer(code, np.uint8), bits)[: -(-size // bits)]


def windows(tokens: int, token_bits: int, window_bits: int) -> tuple[int, np.ndarray]:
  """Number of whole windows in `tokens` tokens, and the token in which each ends, int64 [windows].

  A window is at least as wide as a token, so no token ends two.
  """
  count = tokens * token_bits // window_bits
  return count, (np.arange(1, count + 1) * window_bits - 1) // token_bits


def check_whole(tokens: int, token_bits: int, window_bits: int) -> None:
  """Raises InputError if the bits after the last whole window are more than one token's filling."""
  if tokens * token_bits % window_bits >= token_bits:
    raise InputError(
      f'{tokens} tokens of {token_bits} bits are cut short: they end within a window of '
      f'{window_bits} bits'
    )
