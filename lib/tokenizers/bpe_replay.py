# SPDX-License-Identifier: Apache-2.0
"""Replays the merges of a tokenizer on samples of text, and records the changes of every pair's
count.

`cells` are explained in `bpe_learn`.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np

from lib.tokenizers import bpe_apply


class Pieces(NamedTuple):
  """The pieces of one sample of text, which no merge crosses.

  Attributes:
    cells: int32 [N], the ids that merges begin with, bytes or characters; −1 after each piece.
    times: int32 [N], how often the piece of a cell occurs in the sample.
  """

  cells: np.ndarray
  times: np.ndarray


@dataclasses.dataclass(frozen=True)
class Replay:
  """Counts of neighbouring tokens in S samples while M merges are applied to them.

  Step 0 has the counts before any merge; step t + 1 has the changes by merge t.

  Attributes:
    pairs: int32 [P, 2], all (left, right) that are neighbours at some step, in increasing order.
    merged: int64 [M], the row in `pairs` of the pair that each merge joins; -1 if no sample has it.
    offsets: int64 [M + 2], the changes of step t are offsets[t] to offsets[t + 1].
    pair, sample, change: int32 [C] each: `change` is added to the count of a pair in a sample.
    tokens: int64 [M + 1, S], tokens of each sample before each merge, and at the end.
  """

  pairs: np.ndarray
  merged: np.ndarray
  offsets: np.ndarray
  pair: np.ndarray
  sample: np.ndarray
  change: np.ndarray
  tokens: np.ndarray


def replay(
  pieces: Sequence[Pieces], merges: np.ndarray, lengths: np.ndarray, overlap: bool
) -> Replay:
  """Applies merges in order to S samples, each from left to right without overlap.

  Args:
    pieces: of each of the S samples.
    merges: int32 [M, 3], (left, right, made); ids are below `len(lengths)`.
    lengths: int32 [V], number of initial ids (bytes or characters) that each token covers.
    overlap: how the trainer counts a run of one id: if true, 'aaa' has the pair (a, a) twice, as
      in Hugging Face's trainer, else once. Without overlap no two merges may make the same id.
  """
  samples, size = len(pieces), len(lengths)
  cells = np.concatenate([np.full(1, -1), *(one.cells for one in pieces)]).astype(np.int32)
  owner = np.repeat([0, *range(samples)], [1, *(len(one.cells) for one in pieces)]).astype(np.int32)
  counts = np.concatenate([np.zeros(1), *(one.times for one in pieces)]).astype(np.int32)
  tokens = np.bincount(owner, counts * (cells >= 0), minlength=samples).astype(np.int64)
  begun = _neighbours(cells, owner, size, samples, overlap)
  first, which = np.unique(begun[0], return_inverse=True)
  offsets, keys, changes, applied = _apply(
    cells, owner, counts, merges.astype(np.int32), lengths.astype(np.int32), samples, overlap
  )
  keys = np.concatenate([first, keys])
  pairs, pair = np.unique(keys // samples, return_inverse=True)
  wanted = merges[:, 0].astype(np.int64) * size + merges[:, 1]
  at = np.minimum(np.searchsorted(pairs, wanted), max(len(pairs) - 1, 0))
  return Replay(
    np.stack([pairs // size, pairs % size], axis=1).astype(np.int32),
    np.where(pairs[at] == wanted, at, -1) if len(pairs) else np.full(len(merges), -1),
    np.concatenate([[0], offsets + len(first)]),
    pair.astype(np.int32),
    (keys % samples).astype(np.int32),
    np.concatenate([np.bincount(which, counts[begun[1]], minlength=len(first)), changes]).astype(
      np.int32
    ),
    tokens - np.concatenate([np.zeros((1, samples), np.int64), np.cumsum(applied, axis=0)]),
  )


def _neighbours(
  cells: np.ndarray, owner: np.ndarray, size: int, samples: int, overlap: bool
) -> tuple[np.ndarray, np.ndarray]:
  """Keys (left · size + right) · samples + sample of all counted pairs, and their places."""
  left, right = cells[:-1].astype(np.int64), cells[1:].astype(np.int64)
  counted = (left >= 0) & (right >= 0)
  if not overlap:  # within a run of one id, pairs begin at its even places only
    changes = np.flatnonzero(np.diff(cells, prepend=-2))
    run = np.arange(cells.size) - np.repeat(changes, np.diff(changes, append=cells.size))
    counted &= (left != right) | (run[:-1] % 2 == 0)
  return ((left * size + right) * samples + owner[:-1])[counted], np.flatnonzero(counted)


@numba.njit(cache=True, nogil=True)
def _apply(cells, owner, counts, merges, lengths, samples, overlap):
  """The changes of all merges: offsets [M + 1], keys [C], changes [C], and applied [M, S]."""
  size = len(lengths)
  table = bpe_apply.rules(np.ascontiguousarray(merges[:, :2]))
  # The places of each pair that some merge joins, as linked lists: first -> link -> ...
  first = np.full(len(merges), -1, np.int64)
  places, link = np.empty(3 * cells.size, np.int64), np.empty(3 * cells.size, np.int64)
  used = 0
  for place in range(cells.size - 2, 0, -1):
    one, other = cells[place], cells[place + 1]
    if one >= 0 and other >= 0:
      used = _note(table, one, other, place, first, places, link, used)
  offsets = np.zeros(len(merges) + 1, np.int64)
  keys, changes = np.empty(1 << 16, np.int64), np.empty(1 << 16, np.int32)
  applied = np.zeros((len(merges), samples), np.int64)
  count = 0
  for rule in range(len(merges)):
    left, right, made = merges[rule, 0], merges[rule, 1], merges[rule, 2]
    listed = 0
    entry = first[rule]
    while entry >= 0:
      listed += 1
      entry = link[entry]
    spots = np.empty(listed, np.int64)
    entry = first[rule]
    for i in range(listed):
      spots[i] = places[entry]
      entry = link[entry]
    spots.sort()
    raw, by = np.empty((5 * listed, 3), np.int64), np.empty(5 * listed, np.int32)
    n = 0
    run, end = 0, -1  # tokens `made` in a row that end at `end`
    for p in spots:
      middle = p + lengths[left]
      stop = middle + lengths[right]
      if cells[p] != left or cells[middle] != right:
        continue
      before, after, sample = cells[p - 1], cells[stop], owner[p]
      run = run + 1 if p == end else 1
      end = stop
      applied[rule, sample] += counts[p]
      first_of = n
      # Each neighbourhood that ends or begins. Without overlap a run of k equal ids has k // 2
      # pairs: what changes there depends on whether k is even.
      n = _put(raw, by, n, left, right, -1)
      if before >= 0:
        if overlap or before != left:
          n = _put(raw, by, n, before, left, -1)
        elif left != right and _run_back(cells, lengths, p, left) % 2 == 1:
          n = _put(raw, by, n, left, left, -1)
        if overlap or before != made or run % 2 == 0:
          n = _put(raw, by, n, before, made, 1)
      if after >= 0:
        if overlap or after != right:
          n = _put(raw, by, n, right, after, -1)
        elif left != right and _run_on(cells, lengths, stop, right) % 2 == 1:
          n = _put(raw, by, n, right, right, -1)
        n = _put(raw, by, n, made, after, 1)
      raw[first_of:n, 2] = sample
      by[first_of:n] *= counts[p]
      cells[middle] = cells[middle - 1] = -2
      cells[p] = cells[stop - 1] = made
      if before >= 0:
        place = p - lengths[before]
        used = _note(table, before, made, place, first, places, link, used)
      if after >= 0:
        used = _note(table, made, after, p, first, places, link, used)
    flat = (raw[:n, 0] * size + raw[:n, 1]) * samples + raw[:n, 2]
    order = np.argsort(flat)
    i = 0
    while i < n:
      key, total = flat[order[i]], np.int32(0)
      while i < n and flat[order[i]] == key:
        total += by[order[i]]
        i += 1
      if total != 0:
        if count == keys.size:
          keys = np.concatenate((keys, np.empty_like(keys)))
          changes = np.concatenate((changes, np.empty_like(changes)))
        keys[count], changes[count] = key, total
        count += 1
    offsets[rule + 1] = count
  return offsets, keys[:count].copy(), changes[:count].copy(), applied


@numba.njit(cache=True, nogil=True)
def _note(table, left, right, place, first, places, link, used):
  """Adds `place` to the list of the merge that joins (left, right), if there is one."""
  rule = table[bpe_apply.slot_of(table, left, right), 2]
  if rule < 0:
    return used
  places[used], link[used] = place, first[rule]
  first[rule] = used
  return used + 1


@numba.njit(cache=True, nogil=True)
def _put(raw, by, n, left, right, change):
  """Records a change of a pair's count; returns the number of records."""
  raw[n, 0], raw[n, 1], by[n] = left, right, change
  return n + 1


@numba.njit(cache=True, nogil=True)
def _run_back(cells, lengths, p, token):
  """Number of tokens `token` in a row that end where p begins."""
  run = 0
  while cells[p - 1] == token:
    p -= lengths[token]
    run += 1
  return run


@numba.njit(cache=True, nogil=True)
def _run_on(cells, lengths, p, token):
  """Number of tokens `token` in a row that begin at p."""
  run = 0
  while cells[p] == token:
    p += lengths[token]
    run += 1
  return run
