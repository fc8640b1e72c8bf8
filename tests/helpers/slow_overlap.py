# SPDX-License-Identifier: Apache-2.0
"""Overlap by a set of all windows of the training text: slow, and independent of `lib`."""

import numpy as np

STRETCH = 100  # bytes


def reference(held, train, length=STRETCH):
  """Marks of each held-out document, from a set of all windows."""
  known = {text[i : i + length] for text in train for i in range(len(text) - length + 1)}
  found = []
  for text in held:
    marked = np.zeros(len(text), bool)
    for i in range(len(text) - length + 1):
      if text[i : i + length] in known:
        marked[i : i + length] = True
    found.append(marked)
  return found


def share(held, train):
  """Share of the marked bytes."""
  marked = np.concatenate([np.zeros(0, bool), *reference(held, train)])
  return marked.mean() if marked.size else 0.0
