# SPDX-License-Identifier: Apache-2.0
"""Texts for tokenizers: of long runs, and of a chain that likes to stay."""

import numpy as np
from hypothesis import strategies as st


def texts(alphabet: bytes, max_runs: int = 30):
  """Strings made of runs: long runs are where pairs overlap."""
  run = st.tuples(st.sampled_from(alphabet), st.sampled_from([1, 1, 1, 2, 3, 4, 9]))
  runs = st.lists(run, max_size=max_runs)
  return runs.map(lambda runs: b''.join(bytes([byte]) * count for byte, count in runs))


def markov(size, stay, seed):
  flips = np.random.default_rng(seed).random(size) >= stay
  return (48 + np.cumsum(flips) % 2).astype(np.uint8).tobytes()
