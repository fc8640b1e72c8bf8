# SPDX-License-Identifier: Apache-2.0
"""What coded text is like: M1's ideal code length, how far bits are from random, edit distance."""

from collections.abc import Sequence

import numba
import numpy as np

from lib.errors import InputError
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.baselines import END
from lib.tokenizers.coding.model import Stepper


def ideal_bits(stepper: Stepper, documents: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
  """The code length of each document, float64 [n], that M1's probabilities allow.

  Returns:
    -log2 of the probabilities of its bytes, and the same of the coder's integer frequencies, to
    which the mark of the end is added.
  """
  exact, coded = np.zeros(len(documents)), np.zeros(len(documents))
  for begin in range(0, len(documents), stepper.streams):
    part = documents[begin : begin + stepper.streams]
    texts = np.zeros((max(map(len, part)), stepper.streams), np.uint8)
    for lane, document in enumerate(part):
      texts[: len(document), lane] = np.frombuffer(document, np.uint8)
    given = np.repeat(stepper.start()[None], stepper.streams, axis=0)
    stepper.reset(np.ones(stepper.streams, bool))
    for place in range(len(texts) + 1):
      frequencies = np.diff(arithmetic.quantise(given, marks=1).astype(np.int64))
      for lane, document in enumerate(part):
        if place < len(document):
          exact[begin + lane] -= np.log2(given[lane, document[place]])
        if place <= len(document):
          symbol = document[place] if place < len(document) else END
          coded[begin + lane] += arithmetic.PRECISION - np.log2(frequencies[lane, symbol])
      if place < len(texts):
        given = stepper.step(texts[place])
  return exact, coded


def divergence(stream: np.ndarray, bits: int, overlapping: bool, corrected: bool = True) -> float:
  """Bits by which strings of `bits` bits are from uniform: KL divergence, from counts.

  Args:
    stream: uint8 [bytes], highest bit first.
    bits: n, 1 to 16; a divisor of 16 where strings do not overlap.
    overlapping: strings begin at every bit (n-grams of bits), not every n-th (tokens of n bits).
    corrected: add (2^n - 1) / 2m nats to the entropy of m strings (Miller 1955), which counts
      alone underestimate by about that much.

  Returns:
    n less the entropy, in bits.

  Raises:
    InputError: another n, or a stream with no such string.
  """
  if not 1 <= bits <= 16 or (not overlapping and 16 % bits):
    raise InputError(f'strings of {bits} bits: choose 1 to 16, without overlap a divisor of 16.')
  values = strings(stream, bits)[:: 1 if overlapping else bits]
  if not values.size:
    raise InputError(f'{stream.size} bytes hold no string of {bits} bits.')
  counts = np.bincount(values, minlength=1 << bits)
  share = counts[counts > 0] / values.size
  entropy = -(share * np.log2(share)).sum()
  if corrected:
    entropy += ((1 << bits) - 1) / (2 * values.size) / np.log(2)
  return bits - float(entropy)


def random_divergence(
  size: int, bits: int, overlapping: bool, seed: int, draws: int = 20
) -> tuple[float, float]:
  """Mean and standard deviation of `divergence` over random streams of `size` bytes."""
  rng = np.random.default_rng(seed)
  found = [
    divergence(rng.integers(0, 256, size, np.uint8), bits, overlapping) for _ in range(draws)
  ]
  return float(np.mean(found)), float(np.std(found, ddof=1))


def strings(stream: np.ndarray, bits: int) -> np.ndarray:
  """The value of the `bits` bits from each bit on, int32 [8 * bytes - bits + 1]."""
  single = np.unpackbits(stream).astype(np.int32)
  count = single.size - bits + 1
  values = np.zeros(max(count, 0), np.int32)
  for place in range(bits):
    values = values << 1 | single[place : place + values.size]
  return values


@numba.njit(cache=True, nogil=True)
def edit_distance(a: np.ndarray, b: np.ndarray) -> int:
  """Fewest insertions, deletions and changes of single ids from `a` [n] to `b` [m]."""
  row = np.arange(b.size + 1)
  for i in range(a.size):
    before, row[0] = row[0], i + 1
    for j in range(b.size):
      changed = before + (a[i] != b[j])
      before = row[j + 1]
      row[j + 1] = min(changed, before + 1, row[j] + 1)
  return row[b.size]
