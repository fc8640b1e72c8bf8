# SPDX-License-Identifier: Apache-2.0
"""Prediction of renamed text: the exact lexinvariant predictor of a Markov chain, and its bounds.

The lexinvariant predictor of a law p over d symbols is p'(x) = E_π[p(π⁻¹x)], π uniform over all
renamings (Huang et al., arXiv 2305.16349, section 2.1). It is a Bayes mixture: every sequence has
p'(x) ≥ p(x)/d!, so that no sequence, and no prefix of one, costs more than log d! nats above p.

Legend: N sequences, T length, d symbols. All losses and regrets are in nats.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np

from lib.errors import InputError
from lib.tasks.markov.chains import MarkovSource

MAX_ALPHABET = 8  # 8! = 40,320 renamings


class Prediction(NamedTuple):
  """A predictor's distribution of each symbol, given the symbols before it.

  Attributes:
    laws: [N, T, d] the distribution of symbol t given symbols 0 … t − 1.
    nats: [N, T] −log of the probability of the actual symbol.
  """

  laws: np.ndarray
  nats: np.ndarray


def informed(source: MarkovSource, sequences: np.ndarray) -> Prediction:
  """The predictor p that knows the symbols: the source itself.

  Args:
    source: of order 1.
    sequences: integer [N, T] symbols.

  Raises:
    InputError: a source of higher order, or sequences of another shape or alphabet.
  """
  sequences = _checked(source, sequences)
  first = np.broadcast_to(source.stationary, (len(sequences), 1, source.alphabet_size))
  return _prediction(np.concatenate([first, source.kernel[sequences[:, :-1]]], 1), sequences)


def exact_bayes(source: MarkovSource, sequences: np.ndarray) -> Prediction:
  """The lexinvariant predictor p' by enumeration: the posterior over all d! renamings at each t.

  The log weight of every renaming is kept throughout. A renaming is left out of a sum while its
  weight is below 1e-17 of the total.

  Args:
    source: of order 1, with d ≤ 8 symbols.
    sequences: integer [N, T] symbols, under any names.

  Raises:
    InputError: too many symbols, a source of higher order, or unfit sequences.
  """
  size = source.alphabet_size
  if size > MAX_ALPHABET:
    raise InputError(
      f'Exact Bayes enumerates all d! renamings and takes d ≤ {MAX_ALPHABET} symbols; '
      f'{size} symbols have {size}! = {math.factorial(size):.3g}.'
    )
  sequences = _checked(source, sequences)
  roles = np.array(list(itertools.permutations(range(size))), np.uint8)
  log_kernel = np.log(source.kernel)
  # The heaviest renaming gives each symbol at least min(kernel); all that is left out adds less
  # than e^-40 of that.
  floor = log_kernel.min() - log_permutations(size) - 40
  laws = np.zeros((*sequences.shape, size))
  _enumerate(sequences, roles, np.log(source.stationary), log_kernel, floor, laws)
  return _prediction(laws, sequences)


def counting_nats(sequences: np.ndarray, d: int, order: int, smoothing: float = 0.5) -> np.ndarray:
  """float64 [N, T] nats of in-context counting, which is reset in each sequence.

  With a = `smoothing`, t symbols seen and c their counts, the unigram is
  P(w) = (c(w) + a) / (t + a d), and the bigram after h has it as its prior of the same weight:
  P(w|h) = (c(hw) + a d P(w)) / (c(h·) + a d). At a = 1/2 the unigram is that of Krichevsky and
  Trofimov (1981). Neither depends on names, so neither beats p' in expectation.

  Args:
    sequences: integer [N, T] symbols in [0, d).
    d: number of symbols.
    order: 0 for the unigram, 1 for the bigram.
    smoothing: a > 0, pseudo-counts per symbol.

  Raises:
    InputError: another order, smoothing that is not positive, or unfit sequences.
  """
  if order not in (0, 1) or not smoothing > 0:
    raise InputError(
      'In-context counting has order 0 or 1 and smoothing above 0; '
      f'got order {order} and smoothing {smoothing}.'
    )
  return _count(_symbols(sequences, d), d, order, smoothing)


# (ids [N, T], sample number) -> nats [N, T] of a model under that sample of random rows.
Score = Callable[[np.ndarray, int], np.ndarray]


def label_leak(
  score: Score, sequences: np.ndarray, d: int, draws: int, seed: int = 0
) -> np.ndarray:
  """float64 [N, T] nats under permuted labels less nats under the labels as they are.

  A model without fixed labels has the same distribution of nats under both, so the mean over
  sequences is 0 up to chance. Rows and permutations are sampled `draws` times and averaged.

  Args:
    score: the model; samples of different numbers are independent.
    sequences: integer [N, T] symbols in [0, d), under the labels of training.
    d: number of symbols.
    draws: samples of rows for each side.
    seed: of the permutations.
  """
  sequences = _symbols(sequences, d)
  rng = np.random.default_rng(seed)
  gain = np.zeros(sequences.shape)
  for draw in range(draws):
    labels = rng.permuted(np.tile(np.arange(d), (len(sequences), 1)), axis=1)
    permuted = np.take_along_axis(labels, sequences, axis=1)
    gain += np.asarray(score(permuted, 2 * draw + 1), np.float64) - score(sequences, 2 * draw)
  return gain / draws


def log_permutations(d: int) -> float:
  """log d!: the most that p' can lose to p on any sequence, from p'(x) ≥ p(x)/d!."""
  return math.lgamma(d + 1)


def regret_bound_l1(d: int, T: int) -> float:
  """√(2 log d!/T), above the expected average over t of ‖p(·|x<t) − p'(·|x<t)‖₁.

  Derived here, not in the paper: E Σ_t KL_t = E log p(x)/p'(x) ≤ log d!, then ‖·‖₁ ≤ √(2 KL)
  (Pinsker) and the concavity of the root.
  """
  return math.sqrt(2 * log_permutations(d) / T)


def paper_rate_l1(d: int, T: int) -> float:
  """(d/T)^(1/4): the rate of the theorem in section 2.1 of arXiv 2305.16349, without constants."""
  return (d / T) ** 0.25


def paper_sample_size(d: int, epsilon: float, delta: float) -> int:
  """The least T for which the paper proves average L1 ≤ ε with probability at least 1 − δ.

  T ≥ 512 log(2/δ) log²(dT/(δε')) log(d!)/ε⁴ with ε' = ε/(2√2 (2 log(2/δ))^(1/4)): the explicit
  form in the proof of the theorem (arXiv 2305.16349, appendix A).
  """
  _check_accuracy(epsilon, delta)
  part = epsilon / (2 * math.sqrt(2) * (2 * math.log(2 / delta)) ** 0.25)
  scale = 512 * math.log(2 / delta) * log_permutations(d) / epsilon**4
  needed = lambda T: math.ceil(scale * math.log(d * T / (delta * part)) ** 2)
  T = 1  # the right-hand side grows with T: from below, each step stays at or below the answer
  while needed(T) > T:
    T = needed(T)
  return T


def expected_sample_size(d: int, epsilon: float) -> int:
  """The least T for which `regret_bound_l1` is at most ε: 2 log d!/ε²."""
  _check_accuracy(epsilon)
  return math.ceil(2 * log_permutations(d) / epsilon**2)


def likely_sample_size(d: int, epsilon: float, delta: float) -> int:
  """(4 log d! + 8 log(1/δ))/ε²: a T with average L1 ≤ ε with probability at least 1 − δ.

  Derived here; the paper's statement, with far fewer symbols. Let B_t = Σ_y √(p_t p'_t).
  Then Π_t √(p'_t(x_t)/p_t(x_t))/B_t has mean 1, so that by Markov's inequality
  −Σ log B_t ≤ ½ log(p(x)/p'(x)) + log(1/δ) except with probability δ. The first term is at most
  ½ log d!, and ‖p_t − p'_t‖₁² ≤ 4(1 − B_t²) ≤ −8 log B_t.
  """
  _check_accuracy(epsilon, delta)
  return math.ceil((4 * log_permutations(d) + 8 * math.log(1 / delta)) / epsilon**2)


def _check_accuracy(*accuracies: float) -> None:
  if not all(0 < accuracy < 0.5 for accuracy in accuracies):
    raise InputError(
      'The theorem speaks of epsilon and delta strictly inside (0, 1/2); '
      f'got {", ".join(map(str, accuracies))}.'
    )


def _checked(source: MarkovSource, sequences: np.ndarray) -> np.ndarray:
  """The sequences, if the source has order 1 and could have made them."""
  if source.order != 1:
    raise InputError(f'Renaming is solved for sources of order 1; this one has {source.order}.')
  return _symbols(sequences, source.alphabet_size)


def _symbols(sequences: np.ndarray, d: int) -> np.ndarray:
  """int64 [N, T], each symbol in [0, d)."""
  sequences = np.asarray(sequences)
  if (
    sequences.ndim != 2
    or sequences.size == 0
    or sequences.dtype.kind not in 'iu'
    or sequences.min() < 0
    or sequences.max() >= d
  ):
    raise InputError(
      f'Sequences are integers [N, T] in [0, {d}), none of them empty; '
      f'got {sequences.dtype} {list(sequences.shape)}'
      + (f' from {sequences.min()} to {sequences.max()}.' if sequences.size else '.')
    )
  return np.ascontiguousarray(sequences, np.int64)


def _prediction(laws: np.ndarray, sequences: np.ndarray) -> Prediction:
  came = np.take_along_axis(laws, sequences[..., None], axis=2)
  return Prediction(laws, -np.log(came[..., 0]))


@numba.njit(cache=True, nogil=True)
def _enumerate(sequences, roles, log_start, log_kernel, floor, laws):
  """Fills laws [N, T, d], given roles [d!, d]: the source symbol behind each name."""
  renamings, size = roles.shape
  kernel = np.exp(log_kernel)
  log_weights = np.empty(renamings)
  for sequence, law in zip(sequences, laws):
    law[0] = 1 / size
    for i in range(renamings):
      log_weights[i] = log_start[roles[i, sequence[0]]]
    for t in range(1, len(sequence)):
      last = sequence[t - 1]
      top, total = log_weights.max(), 0.0
      for i in range(renamings):
        if log_weights[i] - top > floor:
          weight = np.exp(log_weights[i] - top)
          total += weight
          for name in range(size):
            law[t, name] += weight * kernel[roles[i, last], roles[i, name]]
      law[t] /= total
      for i in range(renamings):
        log_weights[i] += log_kernel[roles[i, last], roles[i, sequence[t]]]


@numba.njit(cache=True, nogil=True)
def _count(sequences, size, order, smoothing):
  """Nats [N, T] of `counting_nats`."""
  nats = np.empty(sequences.shape)
  for n, sequence in enumerate(sequences):
    unigram, bigram = np.zeros(size), np.zeros((size, size))
    for t, symbol in enumerate(sequence):
      probability = (unigram[symbol] + smoothing) / (t + smoothing * size)
      unigram[symbol] += 1
      if order == 1 and t > 0:
        after = bigram[sequence[t - 1]]
        probability = (after[symbol] + smoothing * size * probability) / (
          after.sum() + smoothing * size
        )
        after[symbol] += 1
      nats[n, t] = -np.log(probability)
  return nats
