# SPDX-License-Identifier: Apache-2.0
"""Estimates of the minutes of tables, and of the time left in a run."""

import time
from collections.abc import Hashable, Mapping
from typing import Any

# Approximate minutes of each table at `cpu` on two cores; also weights for the time left.
MINUTES = {
  'markov': {'ngram': 0.1, 'blocks': 0.1, 'token_ngram': 1.2, 'bound': 0.1, 'transformer': 5.8,
             'generalization': 0.1, 'real_text': 2.1},
  'lexinvariant': {'theory': 0.1, 'markov': 10, 'context': 52, 'cipher': 3, 'in_context': 6,
                   'regularizer': 10, 'draws': 0.8, 'cost': 0.9},
  'equal_info': {'ratio': 7.4, 'm2': 45, 'windows': 0.1, 'reset': 0.3, 'decompress': 7.0,
                 'uniformity': 8, 'stability': 0.2},
  'visual_unicode': {'coverage': 0.1, 'loss': 10, 'reasoning': 10, 'homoglyphs': 2,
                     'unseen_script': 2.6, 'neighbours': 0.5, 'growth': 4.5},
  'mixture': {'exact': 0.5, 'domains': 7, 'languages': 0.1, 'off_the_shelf': 0.1},
  'tokenizers': {'compression': 0.7, 'transition': 0.2, 'compare': 0.3, 'parity': 0.1,
                 'lib': 0.7, 'quality': 10},
  'byte_exact': {'bias': 1.0, 'cut': 3.6, 'fim': 4.1, 'ensemble': 4.6, 'cost': 1.9},
  'transplant': {'transplant': 9.0, 'noise_anchor': 2.0, 'languages': 4.0},
  'hierarchy': {'causality': 0.5, 'chunking': 14, 'ablation': 8, 'curve': 0.5, 'noise_bytes': 0.5},
  'matrix': {'grid': 10.0, 'budget': 11.5, 'markov': 0.5},
}  # fmt: skip


class TimeLeft:
  """Progress over some tables, and an estimate of the time left.

  Args:
    minutes: table -> weight, in the order of running.
    pace: real minutes per minute of weight, if known.
  """

  def __init__(self, minutes: Mapping[Any, float], pace: float | None):
    self._begin = time.monotonic()
    self._all, self._ahead, self._pace = dict(minutes), dict(minutes), pace

  def reaches(self, table: Hashable) -> str:
    """Marks the start of a table, after which earlier tables are done; returns 'about 5 minutes
    left'.
    """
    order = list(self._all)
    for before in order[: order.index(table)]:
      self._ahead.pop(before, None)
    spent = (time.monotonic() - self._begin) / 60
    if done := sum(self._all.values()) - sum(self._ahead.values()):
      self._pace = spent / done
    if self._pace is None:
      return 'time left unknown'
    left = sum(self._ahead.values()) * self._pace
    return f'about {left:.0f} minutes left' if left >= 1.5 else 'about a minute left or less'
