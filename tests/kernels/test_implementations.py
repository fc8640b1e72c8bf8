# SPDX-License-Identifier: Apache-2.0
"""Kernels are chosen by what a program is compiled for."""

import jax.numpy as jnp
import pytest

from pallas_kernels import causal_attention, linear_cross_entropy
from pallas_kernels.implementations import backend, check_implementation
from tests.helpers import absent


@pytest.mark.parametrize(
  ('platform', 'attention', 'loss'),
  [('cpu', 'xla', 'chunked'), ('tpu', 'pallas', 'chunked'), ('gpu', 'triton', 'triton')],
)
def test_the_mesh_in_force_decides_and_not_this_process(platform, attention, loss):
  with absent.on(platform):
    assert backend() == platform
    assert causal_attention.preferred(64, jnp.dtype('bfloat16')) == attention
    assert linear_cross_entropy.preferred(2**30, jnp.dtype('bfloat16')) == loss
  assert backend() == 'cpu'


def test_implementations_that_the_mesh_cannot_run_are_refused():
  with absent.on('tpu'):
    check_implementation('loss', 'pallas', ['pallas', 'triton'], False)
    with pytest.raises(ValueError, match="'triton' runs on a GPU, not on tpu"):
      check_implementation('loss', 'triton', ['pallas', 'triton'], False)
