# SPDX-License-Identifier: Apache-2.0
"""Data mixture inference (arXiv 2407.16607): the mixture of text that merges were learned on.

A trainer of BPE joins the pair that is most frequent in its text. So before every merge the pair
that it joins was at least as frequent as any other, in the mixture α of the categories of which the
text was made. With counts c_i(t, p) of pair p in a sample of category i just before merge t, m(t)
the pair that it joins, and D_i pairs in that sample at the start, the linear program is

  minimise Σ_t v_t + Σ_p u_p over α in the simplex and v, u ≥ 0, such that for all t and p ≠ m(t)
  Σ_i α_i (c_i(t, m(t)) − c_i(t, p)) / D_i + v_t + u_p ≥ 0.

Its rows are made when they are violated. A merge of a pair that no sample has gives no rows.
"""

import dataclasses
import heapq
from collections.abc import Sequence

import highspy
import numba
import numpy as np

from lib.errors import InputError
from lib.tokenizers.bpe_replay import Replay

PRIMAL = 4  # HiGHS's number for the primal simplex method
TOLERANCE = 1e-6  # pairs by which a row may be violated: counts are whole numbers


@dataclasses.dataclass(frozen=True)
class Solution:
  """The mixture that best explains the merges.

  Attributes:
    shares: float64 [n], α: the share of each category in the pairs of the training text.
    objective: Σ v + Σ u, as a share of all pairs; 0 where every merge is explained.
  """

  shares: np.ndarray
  objective: float


class Attack:
  """The linear program of merges and of samples of n categories.

  Args:
    replay: of the merges on the samples, one for each category.
    merges: how many count, from the first; by default all.
    allowed: bool [P], the pairs that the trainer could have joined; by default all.
    most: rows that are added for one merge before the program is solved again.

  Raises:
    InputError: one category, or samples that have none of the merges.
  """

  def __init__(
    self,
    replay: Replay,
    merges: int | None = None,
    allowed: np.ndarray | None = None,
    most: int = 10,
  ):
    self._size = replay.tokens.shape[1]
    if self._size < 2:
      raise InputError('a mixture needs samples of two categories or more; got one')
    self._merged = replay.merged[:merges]
    if not np.any(self._merged >= 0):
      raise InputError('the samples have none of the pairs that this tokenizer joins')
    self._replay, self._most = replay, most
    self._never = np.zeros(0, int) if allowed is None else np.flatnonzero(~allowed)
    first = slice(0, replay.offsets[1])
    self._pairs = np.bincount(replay.sample[first], replay.change[first], minlength=self._size)
    self._rows = np.zeros((0, 2), np.int64)  # merge, pair
    self._counts = np.zeros((0, self._size))  # of m(t) less that of p, in each sample

  def solve(self, shares: np.ndarray | None = None) -> Solution:
    """The best mixture; or, for given `shares` [n], the objective that they have."""
    program = _Program(self._size, shares)
    program.add(self._rows, self._coefficients(self._counts))
    while True:
      found, merge_slack, pair_slack = program.solve()
      rows = self._violated(found, merge_slack, pair_slack)
      if not len(rows):
        self._basis = program.basis
        return Solution(found, program.objective / self._pairs.sum())
      counts = _differences(self._replay, rows, self._size)
      self._rows = np.concatenate([self._rows, rows])
      self._counts = np.concatenate([self._counts, counts])
      program.add(rows, self._coefficients(counts))

  def ranges(self, slack: float = 0.01) -> np.ndarray:
    """Least and largest value [n, 2] of each share while the objective grows by `slack` of itself.

    Uses the rows added so far. Categories that the samples cannot distinguish have wide ranges.
    """
    program = _Program(self._size, None)
    program.add(self._rows, self._coefficients(self._counts))
    program.begin(self._basis)
    program.solve()
    return program.ranges(slack)

  def byte_shares(self, shares: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Shares of bytes [n] of shares of pairs, by the bytes of each category's sample."""
    found = shares * np.asarray(sizes) / self._pairs
    return found / found.sum()

  def _coefficients(self, counts: np.ndarray) -> np.ndarray:
    """Of the shares in rows, [R, n]; rows are in pairs, so that a tolerance is of a count."""
    return counts * (self._pairs.sum() / self._pairs)

  def _violated(
    self, shares: np.ndarray, merge_slack: dict[int, float], pair_slack: dict[int, float]
  ) -> np.ndarray:
    """(merge, pair) of the rows that are violated most, int64 [R, 2]."""
    one = self._replay
    weights = shares * self._pairs.sum() / self._pairs
    of_merge, of_pair = np.zeros(len(self._merged)), np.zeros(len(one.pairs))
    of_merge[list(merge_slack)] = list(merge_slack.values())
    of_pair[list(pair_slack)] = list(pair_slack.values())
    of_pair[self._never] = np.inf
    return _sweep(
      self._merged,
      one.offsets,
      one.pair,
      one.sample,
      one.change,
      weights,
      of_merge,
      of_pair,
      self._most,
    )


class _Program:
  """The linear program in HiGHS, which begins each solution where the last one ended."""

  def __init__(self, count: int, shares: np.ndarray | None):
    self._solver = highspy.Highs()
    self._solver.setOptionValue('output_flag', False)
    self._count = count
    self._merges: dict[int, int] = {}  # merge -> column of its slack
    self._pairs: dict[int, int] = {}
    low, high = (np.zeros(count), np.ones(count)) if shares is None else (shares, shares)
    self._columns(np.zeros(count), low, high)
    if shares is None:
      self._solver.addRow(1.0, 1.0, count, np.arange(count), np.ones(count))

  def _columns(self, cost: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    none, starts = np.zeros(0), np.zeros(len(cost), np.int32)
    self._solver.addCols(len(cost), cost, low, high, 0, starts, none.astype(np.int32), none)

  def add(self, rows: np.ndarray, coefficients: np.ndarray) -> None:
    """Adds rows (merge, pair) [R, 2] with the coefficients [R, n] of the shares."""
    columns, new = np.empty((len(rows), self._count + 2), np.int32), 0
    columns[:, : self._count] = np.arange(self._count)
    free = self._solver.getNumCol()
    for index, (merge, pair) in enumerate(rows.tolist()):
      for place, known, one in ((-2, self._merges, merge), (-1, self._pairs, pair)):
        if one not in known:
          known[one] = free + new
          new += 1
        columns[index, place] = known[one]
    self._columns(np.ones(new), np.zeros(new), np.full(new, highspy.kHighsInf))
    values = np.concatenate([coefficients, np.ones((len(rows), 2))], axis=1)
    starts = np.arange(len(rows), dtype=np.int32) * (self._count + 2)
    self._solver.addRows(
      len(rows),
      np.zeros(len(rows)),
      np.full(len(rows), highspy.kHighsInf),
      values.size,
      starts,
      columns.ravel(),
      values.ravel(),
    )

  def solve(self) -> tuple[np.ndarray, dict[int, float], dict[int, float]]:
    """The shares [n], and the slack of each merge and pair."""
    self._solver.run()
    if self._solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
      raise RuntimeError(f'HiGHS: {self._solver.getModelStatus()}')
    values = np.array(self._solver.getSolution().col_value)
    of = lambda known: {one: values[column] for one, column in known.items()}
    return values[: self._count], of(self._merges), of(self._pairs)

  @property
  def basis(self) -> highspy.HighsBasis:
    """Where the last solution ended."""
    return self._solver.getBasis()

  def begin(self, basis: highspy.HighsBasis) -> None:
    """Begins where another program of the same rows ended."""
    self._solver.setBasis(basis)

  @property
  def objective(self) -> float:
    """Of the last solution."""
    return self._solver.getObjectiveValue()

  def ranges(self, slack: float) -> np.ndarray:
    """Least and largest value [n, 2] of each share among solutions up to `slack` worse."""
    size, limit = self._solver.getNumCol(), self.objective * (1 + slack) + TOLERANCE
    costs = np.arange(self._count, size, dtype=np.int32)
    self._solver.addRow(-highspy.kHighsInf, limit, len(costs), costs, np.ones(len(costs)))
    self._solver.changeColsCost(len(costs), costs, np.zeros(len(costs)))
    self._solver.setOptionValue('simplex_strategy', PRIMAL)  # the old basis stays feasible
    found = np.zeros((self._count, 2))
    for one in range(self._count):
      for side, sign in enumerate((1.0, -1.0)):
        self._solver.changeColCost(one, sign)
        found[one, side] = self.solve()[0][one]
      self._solver.changeColCost(one, 0.0)
    return found


@numba.njit(cache=True, nogil=True)
def _sweep(merged, offsets, pair, sample, change, weights, of_merge, of_pair, most):
  """The `most` rows of each merge that are violated most, int64 [R, 2] (merge, pair)."""
  mixed = -of_pair  # weighted count of each pair, less its slack
  # (−bound, pair): bounds are renewed when a pair grows; an older one is found out at the top.
  heap: list[tuple] = [(0.0, 0) for _ in range(0)]
  rows: list[tuple] = [(0, 0) for _ in range(0)]
  for merge in range(len(merged)):
    for i in range(offsets[merge], offsets[merge + 1]):
      p = np.int64(pair[i])
      mixed[p] += weights[sample[i]] * change[i]
      if i + 1 == offsets[merge + 1] or pair[i + 1] != p:
        heapq.heappush(heap, (-mixed[p], p))
    own = merged[merge]
    if own < 0:
      continue
    limit = mixed[own] + of_pair[own] + of_merge[merge] + TOLERANCE
    top: list[tuple] = [(0.0, 0) for _ in range(0)]
    found = 0
    while len(heap) > 0 and -heap[0][0] > limit and found < most:
      bound, p = heapq.heappop(heap)
      if -bound != mixed[p] or (len(top) > 0 and top[-1][1] == p):
        continue
      top.append((bound, p))
      if p != own:
        rows.append((merge, p))
        found += 1
    for entry in top:
      heapq.heappush(heap, entry)
  found_rows = np.empty((len(rows), 2), np.int64)
  for i in range(len(rows)):
    found_rows[i, 0], found_rows[i, 1] = rows[i]
  return found_rows


def _differences(replay: Replay, rows: np.ndarray, samples: int) -> np.ndarray:
  """The count of the merged pair less that of the other one in each sample, int [R, S]."""
  needed = np.unique(np.concatenate([rows[:, 1], replay.merged[rows[:, 0]]]))
  index = np.full(len(replay.pairs), -1)
  index[needed] = np.arange(len(needed))
  return _count_at(
    replay.merged,
    replay.offsets,
    replay.pair,
    replay.sample,
    replay.change,
    rows,
    index,
    np.zeros((len(needed), samples)),
  )


@numba.njit(cache=True, nogil=True)
def _count_at(merged, offsets, pair, sample, change, rows, index, counts):
  found = np.empty((len(rows), counts.shape[1]))
  row = 0  # they are in the order of merges
  for merge in range(rows[-1, 0] + 1):
    for i in range(offsets[merge], offsets[merge + 1]):
      if index[pair[i]] >= 0:
        counts[index[pair[i]], sample[i]] += change[i]
    while row < len(rows) and rows[row, 0] == merge:
      found[row] = counts[index[merged[merge]]] - counts[index[rows[row, 1]]]
      row += 1
  return found
