# SPDX-License-Identifier: Apache-2.0
"""Measures of coded text: ideal code length, divergence of bits from uniform, edit distance."""

import collections
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numba
import numpy as np

from lib.errors import InputError
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.baselines import ended
from lib.tokenizers.coding.stepping import Stepped


class CodeLengths(NamedTuple):
  """Bits of each of N documents, float64 [N] each.

  Attributes:
    exact: -log2 of the byte model's probabilities of the document's bytes.
    integer: -log2 of the coder's 14-bit frequencies of the same bytes.
    end: of the end mark of the stream, by the same frequencies.
  """

  exact: np.ndarray
  integer: np.ndarray
  end: np.ndarray

  def excess(self, spent: np.ndarray) -> dict[str, np.ndarray]:
    """The excess of codes of `spent` bits [N] over `exact`, as a sum of three causes.

    'rounding' is the excess of the coder and of the last token over the stream's information.
    """
    return {
      'frequencies': self.integer - self.exact,
      'end_mark': self.end,
      'rounding': spent - self.integer - self.end,
    }


def code_lengths(probabilities: Iterable[np.ndarray], documents: Sequence[bytes]) -> CodeLengths:
  """The ideal code length of each document under a byte model and a coder of 14 bits.

  Args:
    probabilities: next-byte probabilities after 0, 1, … all bytes of each document, [n + 1, 256],
      as `teacher_forced.probabilities` yields them.
    documents: N texts.
  """
  found = []
  for rows, document in zip(probabilities, documents, strict=True):
    symbols = ended(document)
    frequencies = np.diff(arithmetic.quantise(rows, marks=1).astype(np.int64))
    information = arithmetic.PRECISION - np.log2(frequencies[np.arange(symbols.size), symbols])
    exact = -np.log2(rows[np.arange(len(document)), symbols[:-1]], dtype=np.float64)
    found.append((exact.sum(), information[:-1].sum(), information[-1]))
  return CodeLengths(*np.array(found).reshape(-1, 3).T)


def decode(tokenizer: Tokenizer, rows: Sequence[np.ndarray]) -> list[tuple[bytes, np.ndarray]]:
  """The bytes of each row of ids, and how many each id covers."""
  if isinstance(tokenizer, Stepped):
    return tokenizer.decode_all(rows)
  return [(tokenizer.decode(row), tokenizer.byte_lengths(row)) for row in rows]


def windows_restored(
  tokenizer: Tokenizer, documents: Sequence[bytes], coded: Iterable[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
  """Windows of each document that come back as they were, and all of its windows, int64 [N] both.

  Args:
    tokenizer: of equal-info windows.
    documents: N texts.
    coded: ids, and the bytes that each covers, int32 [2, n] of each document.
  """
  coded = list(coded)
  found = decode(tokenizer, [ids for ids, _ in coded])
  same = []
  for document, (text, lengths), (_, meant) in zip(documents, found, coded, strict=True):
    pairs = zip(_windows(document, meant), _windows(text, lengths), strict=True)
    same.append([one == other for one, other in pairs])
  return np.array([sum(one) for one in same]), np.array([len(one) for one in same])


def _windows(text: bytes, lengths: np.ndarray) -> list[bytes]:
  """The texts of the windows of a document, from the bytes that each token covers."""
  ends = np.cumsum(lengths[lengths > 0]).tolist()
  return [text[a:b] for a, b in zip([0, *ends], ends)]


def attested(
  documents: Sequence[bytes], coded: Iterable[np.ndarray]
) -> dict[int, collections.Counter[bytes]]:
  """Which bytes each token that occurs covers, and how often; `coded` as in `windows_restored`."""
  found: dict[int, collections.Counter[bytes]] = collections.defaultdict(collections.Counter)
  for document, (ids, lengths) in zip(documents, coded, strict=True):
    ends = np.cumsum(lengths).tolist()
    for token, begin, end in zip(ids.tolist(), [0, *ends], ends):
      found[token][document[begin:end]] += 1
  return found


def by_document(coded: Iterable[np.ndarray], documents: np.ndarray) -> list[np.ndarray]:
  """Tokens of a byte: those of each document's excerpts end to end, uint8 [bytes] each.

  Args:
    coded: as in `windows_restored`, of N excerpts.
    documents: int [N], the document of each excerpt.
  """
  found: dict[int, list[np.ndarray]] = {}
  for document, (ids, _) in zip(documents.tolist(), coded, strict=True):
    found.setdefault(document, []).append(ids.astype(np.uint8))
  return [np.concatenate(parts) for parts in found.values()]


def string_counts(streams: Sequence[np.ndarray], bits: int, overlapping: bool) -> np.ndarray:
  """How often each string of `bits` bits occurs in each stream, int32 [streams, 2^bits].

  Args:
    streams: uint8 [bytes] each, highest bit first.
    bits: n, 1 to 16; a divisor of 16 where strings do not overlap.
    overlapping: strings begin at every bit (n-grams of bits), not every n-th (tokens of n bits).

  Raises:
    InputError: another n, or no such string in any stream.
  """
  if not 1 <= bits <= 16 or (not overlapping and 16 % bits):
    raise InputError(f'strings of {bits} bits: choose 1 to 16, without overlap a divisor of 16.')
  step = 1 if overlapping else bits
  values = [strings(stream, bits)[::step] for stream in streams]
  if not sum(map(len, values)):
    size = sum(map(len, streams))
    raise InputError(f'{size} bytes contain no string of {bits} bits.')
  return np.stack([np.bincount(one, minlength=1 << bits) for one in values]).astype(np.int32)


def divergence(counts: np.ndarray, corrected: bool = True) -> np.ndarray:
  """KL divergence of strings from uniform, in bits, estimated from counts.

  Args:
    counts: [..., V] of V = 2^n strings.
    corrected: add (V - 1) / 2m nats to the entropy of m strings (Miller 1955), which counts alone
      underestimate by about that much.

  Returns:
    n less the entropy, in bits, float64 [...].
  """
  total = counts.sum(axis=-1, dtype=np.float64)
  # The entropy is log m - Σ c log c / m; where c = 0 there is nothing to add.
  terms = (counts * np.log2(np.maximum(counts, 1))).sum(axis=-1)
  entropy = np.log2(total) - terms / total
  if corrected:
    entropy = entropy + (counts.shape[-1] - 1) / (2 * total) / np.log(2)
  return np.log2(counts.shape[-1]) - entropy


def divergence_by_stream(counts: np.ndarray) -> np.ndarray:
  """One independent contribution per stream [S] to the divergence of all streams together.

  They are the jackknife's pseudo-values (Quenouille 1956, Tukey 1958): their mean is the corrected
  divergence, and their spread gives its standard error, for any dependence within a stream.

  Args:
    counts: of each stream, as in `string_counts`, [S, V].
  """
  total, size = counts.sum(axis=0, dtype=np.int64), len(counts)
  others = np.array([divergence(total - one) for one in counts])
  return size * divergence(total) - (size - 1) * others


def random_divergence(
  sizes: Sequence[int], bits: int, overlapping: bool, seed: int, draws: int = 20
) -> np.ndarray:
  """`divergence` of random streams of `sizes` bytes, float64 [draws]."""
  rng = np.random.default_rng(seed)
  found = []
  for _ in range(draws):
    streams = [rng.integers(0, 256, size, np.uint8) for size in sizes]
    found.append(divergence(string_counts(streams, bits, overlapping).sum(axis=0)))
  return np.array(found)


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


def mean_distance(rows: Sequence[np.ndarray]) -> float:
  """The mean `edit_distance` of all pairs of rows of ids."""
  return float(np.mean([edit_distance(a, b) for a, b in itertools.combinations(rows, 2)]))
