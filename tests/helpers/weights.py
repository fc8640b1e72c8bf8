# SPDX-License-Identifier: Apache-2.0
"""Weights for tests of what holds for any weights: nothing is compiled to draw them."""

import jax
import numpy as np

from lib.parameters import path_name


def draw(init, *arguments, seed=0, std=0.3):
  """Random arrays of the shapes that `init(*arguments)` makes; scales of norms are near one."""
  rng = np.random.default_rng(seed)

  def one(path, leaf):
    noise = std * rng.normal(size=leaf.shape)
    return (noise + path_name(path).endswith('/scale')).astype(leaf.dtype)

  shapes = jax.eval_shape(init, *arguments)
  return jax.device_put(jax.tree_util.tree_map_with_path(one, shapes))
