# SPDX-License-Identifier: Apache-2.0
"""Estimates with standard errors: every standard error, interval and test of this project.

A standard error is over independent units: documents, seeds, chains. Stretches of one document are
not independent, so sums are formed by document first. If models of S seeds score the same D
documents, seeds and documents are crossed: both are samples.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from lib.errors import InputError

Arm = TypeVar('Arm', bound=Hashable)
LEVEL = 0.95  # confidence of every printed interval
ROUNDING = 1e-9  # of a value: a standard error up to this is rounding
TINY = 1e-12  # a value and a standard error up to this are both rounding


class Estimate(NamedTuple):
  """A value with its error.

  Attributes:
    value: the estimate.
    sem: one standard error, or None if it is unknown.
    n: number of independent units: '57', or '3×57' for 3 seeds crossed with 57 documents.
    over: the units, such as 'documents' or 'seeds×documents'.
    df: degrees of freedom of Student's t; None if nothing can be tested: one seed, one document.
  """

  value: float
  sem: float | None = None
  n: str = ''
  over: str = ''
  df: float | None = None

  def times(self, factor: float) -> 'Estimate':
    """The estimate in another unit, such as bits for nats."""
    sem = None if self.sem is None else abs(factor) * self.sem
    return self._replace(value=self.value * factor, sem=sem)

  @property
  def no_spread(self) -> bool:
    """Whether all units have one value, up to rounding; then no test is possible."""
    size = abs(self.value)
    return self.sem is not None and self.sem <= max(ROUNDING * size, TINY * (size <= TINY))

  def half_width(self, level: float = LEVEL) -> float | None:
    """Half of the two-sided interval of the value, or None if it is unknown."""
    if self.sem is None or self.df is None:
      return None
    return float(special.stdtrit(self.df, 0.5 + level / 2) * self.sem)

  def p_value(self, against: float = 0.0) -> float | None:
    """p of the two-sided t-test that the value is `against`; None if it cannot be tested.

    Without spread it cannot be tested; deterministic values are compared directly.
    """
    if self.sem is None or self.df is None or self.no_spread:
      return None
    return float(2 * special.stdtr(self.df, -abs(self.value - against) / self.sem))

  def p_equivalent(self, margin: float, against: float = 0.0) -> float | None:
    """p of two one-sided t-tests that the value is within ± `margin` of `against`, doubled.

    Below 0.05 exactly if the 95 % interval is inside the margins (TOST; Schuirmann 1987). None if
    it cannot be tested.

    Raises:
      InputError: a margin that is not positive.
    """
    if not margin > 0:
      raise InputError(f'an equivalence margin must be positive; got {margin}.')
    if self.sem is None or self.df is None or self.no_spread:
      return None
    room = margin - abs(self.value - against)
    return float(min(1.0, 2 * special.stdtr(self.df, -room / self.sem)))


def mean(values: ArrayLike, over: str = 'seeds') -> Estimate:
  """Mean of independent values [N] with its standard error."""
  found = np.asarray(values, np.float64)
  sem = float(found.std(ddof=1) / math.sqrt(found.size)) if found.size > 1 else None
  return Estimate(float(found.mean()), sem, str(found.size), over, _df(found.size))


def share(hits: ArrayLike, over: str = 'examples') -> Estimate:
  """Share of hits among independent yes/no results [N].

  The standard error is that of Agresti and Coull (1998), which adds two hits and two misses: it is
  never 0, even if all results are equal.
  """
  found = np.asarray(hits, np.float64)
  count = found.size + 4
  middle = (found.sum() + 2) / count
  sem = math.sqrt(middle * (1 - middle) / count)
  return Estimate(float(found.mean()), sem, str(found.size), over, _df(found.size))


def ratio(
  above: ArrayLike,
  below: ArrayLike,
  groups: Sequence[Hashable] | np.ndarray | None = None,
  over: str = 'documents',
) -> Estimate:
  """Σ above / Σ below of items [N], with the error of a ratio of sums over groups of items.

  Args:
    above: terms of the numerator, such as the nats of each stretch of text.
    below: terms of the denominator, such as its bytes.
    groups: the independent unit of each item, such as its document; by default each item is one.
    over: name of the units.

  Raises:
    InputError: the denominator is not positive.
  """
  one, other = np.asarray(above, np.float64), np.asarray(below, np.float64)
  if groups is not None:
    one, other = by_group(one, groups), by_group(other, groups)
  return mean(contributions(one, other), over)


def by_group(values: ArrayLike, groups: Sequence[Hashable] | np.ndarray) -> np.ndarray:
  """Sums [..., G] over the items of each group of values [..., N], groups by first appearance."""
  found = np.asarray(values, np.float64)
  order: dict[Hashable, int] = {}
  which = np.array([order.setdefault(g, len(order)) for g in np.asarray(groups).tolist()], int)
  if len(which) != found.shape[-1]:
    raise ValueError(f'{len(which)} groups for {found.shape[-1]} items')
  sums = np.zeros((*found.shape[:-1], len(order)))
  np.add.at(np.moveaxis(sums, -1, 0), which, np.moveaxis(found, -1, 0))
  return sums


def contributions(above: ArrayLike, below: ArrayLike) -> np.ndarray:
  """Values [..., D] with the mean Σ above / Σ below and the spread of the ratio.

  To first order a ratio of sums r is the mean over units of r + (above − r below) D / Σ below, so
  ratios can be treated as means: standard errors over units, differences, crossed seeds.

  Args:
    above: [..., D], D independent units last.
    below: [..., D], or [D] for all.

  Raises:
    InputError: a denominator that is not positive.
  """
  one = np.asarray(above, np.float64)
  other = np.broadcast_to(np.asarray(below, np.float64), one.shape)
  total = other.sum(axis=-1, keepdims=True)
  if not (one.size and np.all(total > 0)):
    raise InputError('a ratio of sums needs a positive denominator: there is no text here.')
  rate = one.sum(axis=-1, keepdims=True) / total
  return rate + (one - rate * other) * one.shape[-1] / total


def over_groups(values: ArrayLike, groups: Sequence[Hashable] | np.ndarray) -> np.ndarray:
  """Values [..., G] whose mean is that of the items [..., N] and whose spread is over groups."""
  return contributions(by_group(values, groups), by_group(np.ones(len(groups)), groups))


def crossed(values: ArrayLike, over: str = 'seeds×documents') -> Estimate:
  """Mean of values [S, D]: S seeds, each measured on the same D documents.

  The variance is var(seed means) / S + var(document means) / D, which counts the interaction twice
  and is therefore conservative; df by Satterthwaite (1946). With one seed the variance over seeds
  is
  unknown: the standard error is then over documents alone, and df is None.
  """
  found = np.atleast_2d(np.asarray(values, np.float64))
  seeds, documents = found.shape
  if documents == 1:
    return mean(found[:, 0], over.partition('×')[0])
  of_documents = found.mean(axis=0).var(ddof=1) / documents
  if seeds == 1:
    sem = math.sqrt(of_documents)
    return Estimate(float(found.mean()), sem, f'1×{documents}', over, None)
  of_seeds = found.mean(axis=1).var(ddof=1) / seeds
  df = _satterthwaite((of_seeds, seeds - 1), (of_documents, documents - 1))
  sem = math.sqrt(of_seeds + of_documents)
  return Estimate(float(found.mean()), sem, f'{seeds}×{documents}', over, df)


def deviation(arms: np.ndarray) -> np.ndarray:
  """Contributions [S, D] to the standard deviation between the means of arms [A, S, D].

  The standard deviation is Σ wᵢ mᵢ with wᵢ = (mᵢ − m) / √((A − 1) Σ (mⱼ − m)²), and to first order
  it changes with the means as this sum does. So its contributions are those of this sum.
  """
  means = arms.mean(axis=(1, 2))
  off = means - means.mean()
  return np.tensordot(off / np.sqrt((len(off) - 1) * (off**2).sum()), arms, 1)


def shares(hits: ArrayLike, over: str = 'seeds×examples') -> Estimate:
  """Mean share of hits [S, N] in 0…1: S seeds, each with the same N yes/no examples.

  The variance is that of the seed means over S, as in `crossed`, plus that of `share` for the mean
  over seeds: so it is never 0, even if every answer is wrong. With one seed df is None.
  """
  found = np.atleast_2d(np.asarray(hits, np.float64))
  seeds, examples = found.shape
  of_examples = share(found.mean(axis=0))
  assert of_examples.sem is not None
  if seeds == 1:
    return of_examples._replace(n=f'1×{examples}', over=over, df=None)
  of_seeds = found.mean(axis=1).var(ddof=1) / seeds
  df = _satterthwaite((of_seeds, seeds - 1), (of_examples.sem**2, max(1, examples - 1)))
  sem = math.sqrt(of_seeds + of_examples.sem**2)
  return Estimate(float(found.mean()), sem, f'{seeds}×{examples}', over, df)


def paired_shares(hits: ArrayLike, others: ArrayLike, over: str = 'seeds×examples') -> Estimate:
  """Difference of two mean shares of hits [S, N] of the same seeds on the same examples.

  The error is over seeds and examples, crossed, of the differences with one gain and one loss added
  to the examples (Bonett and Price 2012, Adjusted Wald confidence interval for a difference of
  binomial proportions based on paired data), so that it is never 0.
  """
  differences = np.asarray(hits, np.float64) - np.asarray(others, np.float64)
  seeds, examples = differences.shape
  added = np.concatenate([differences, np.tile([1.0, -1.0], (seeds, 1))], axis=1)
  error = crossed(added, over)
  return error._replace(value=float(differences.mean()), n=f'{seeds}×{examples}')


def jackknife(
  statistic: Callable[[np.ndarray], float], sums: ArrayLike, over: str = 'seeds×documents'
) -> Estimate:
  """A function of sums over seeds and documents, such as a ratio of ratios, with its standard
  error.

  Seeds and documents are left out one at a time (jackknife; Tukey 1958). The two variances are
  added as in `crossed`, with which it agrees for a mean.

  Args:
    statistic: value of sums [K] over all seeds and documents.
    sums: [S, D, K] K sums of each seed and document.
    over: name of the units.

  Returns:
    The estimate; df is None for one seed, whose standard error is over documents alone.
  """
  found = np.asarray(sums, np.float64)
  value = float(statistic(found.sum(axis=(0, 1))))
  parts = []
  for axis in (0, 1):
    count = found.shape[axis]
    if count > 1:
      rest = found.sum(axis=(0, 1)) - found.sum(axis=1 - axis)
      spread = np.array([statistic(one) for one in rest])
      parts.append(((count - 1) / count * ((spread - spread.mean()) ** 2).sum(), count - 1))
  seeds, documents = found.shape[:2]
  sem = math.sqrt(sum(variance for variance, _ in parts)) if parts else None
  df = _satterthwaite(*parts) if seeds > 1 else None
  return Estimate(value, sem, f'{seeds}×{documents}', over, df)


def bootstrap(
  statistic: Callable[[np.ndarray], float],
  strata: Sequence[int],
  draws: int = 100,
  seed: int = 0,
  over: str = 'blocks',
) -> Estimate:
  """A statistic of some units, with the spread that it has when they are drawn again (Efron 1979).

  Args:
    statistic: how often each unit counts, [N] -> its value.
    strata: how many units are in each stratum, N in all; each is drawn again by itself.
    draws: how often all are drawn.
    seed: of the draws; the same for statistics whose difference is of interest.
    over: name of the units.
  """
  count = sum(strata)
  value, df = float(statistic(np.ones(count))), float(count - len(strata))
  if df <= 0:
    return Estimate(value, None, str(count), over, None)
  rng = np.random.default_rng(seed)
  weights = np.concatenate(
    [rng.multinomial(size, np.full(size, 1 / size), draws) for size in strata], axis=1
  )
  spread = np.std([statistic(one.astype(float)) for one in weights], ddof=1)
  return Estimate(value, float(spread), str(count), over, df)


def arms(
  values: Mapping[Arm, ArrayLike], reference: Arm, over: str = 'seeds'
) -> dict[Arm, Estimate]:
  """Differences of arms from a reference arm, paired by seed, with a pooled residual variance.

  The model is value = arm + seed + noise of one variance. With A compared arms and S seeds the
  noise has A × (S − 1) degrees of freedom, and a difference has the variance 2 noise² / S. For one
  compared arm that is the paired t-test.

  Args:
    values: arm -> [S], or [S, D] if the seeds score the same D documents: then the variance of
      the difference over documents is added, as in `crossed`.
    reference: the arm that the others are compared with.
    over: name of the units: 'seeds', or 'seeds×documents'.

  Returns:
    arm -> difference, for each arm but the reference. df is None for one seed.

  Raises:
    InputError: no such reference, or arms of different shapes.
  """
  found = {arm: np.asarray(one, np.float64) for arm, one in values.items()}
  found = {arm: one[:, None] if one.ndim == 1 else one for arm, one in found.items()}
  if reference not in found or len({one.shape for one in found.values()}) != 1:
    shapes = ', '.join(f'{arm} {one.shape}' for arm, one in found.items())
    raise InputError(f'arms must include {reference!r} and have one shape; got {shapes}.')
  seeds, documents = found[reference].shape
  means = np.stack([one.mean(axis=1) for one in found.values()])  # [arms, seeds]
  residuals = means - means.mean(axis=0) - means.mean(axis=1, keepdims=True) + means.mean()
  freedom = (len(means) - 1) * (seeds - 1)
  of_seeds = 2 * (residuals**2).sum() / freedom / seeds if freedom else 0.0
  n = str(seeds) if documents == 1 else f'{seeds}×{documents}'
  differences = {}
  for arm in found:
    if arm == reference:
      continue
    by_document = (found[arm] - found[reference]).mean(axis=0)
    of_documents = by_document.var(ddof=1) / documents if documents > 1 else 0.0
    sem = math.sqrt(of_seeds + of_documents) if freedom or documents > 1 else None
    parts = [(of_seeds, freedom)] + [(of_documents, documents - 1)] * (documents > 1)
    df = _satterthwaite(*parts) if freedom else None
    differences[arm] = Estimate(float(by_document.mean()), sem, n, over, df)
  return differences


def difference(one: Estimate, other: Estimate) -> Estimate:
  """The difference of two independent estimates; df by Welch (1947) and Satterthwaite."""
  value = one.value - other.value
  units = list(dict.fromkeys(part for part in (one.n, other.n) if part))
  over = one.over if one.over == other.over or not other.over else f'{one.over} and {other.over}'
  if one.sem is None or other.sem is None:
    return Estimate(value, None, ' and '.join(units), over, None)
  sem = math.hypot(one.sem, other.sem)
  df = None
  if one.df is not None and other.df is not None:
    df = _satterthwaite((one.sem**2, one.df), (other.sem**2, other.df))
  return Estimate(value, sem, ' and '.join(units), over, df)


def holm(p_values: Sequence[float]) -> list[float]:
  """p-values adjusted for their number (Holm 1979): reject those at or below the level.

  The probability of rejecting any true hypothesis is then at most the level, for any dependence.
  """
  order = np.argsort(p_values, kind='stable')
  adjusted, largest = [1.0] * len(p_values), 0.0
  for rank, index in enumerate(order):
    largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
    adjusted[index] = largest
  return adjusted


def _df(count: int) -> float | None:
  return float(count - 1) if count > 1 else None


def _satterthwaite(*parts: tuple[float, float]) -> float:
  """Effective df of a sum of independent variances, each with its own df."""
  total = sum(variance for variance, _ in parts)
  if total == 0:
    return float(min(df for _, df in parts))
  return float(total**2 / sum(variance**2 / df for variance, df in parts if df))
