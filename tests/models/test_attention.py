# SPDX-License-Identifier: Apache-2.0
"""Attention: every implementation equals the reference, forward and backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import attention as kernels
from pallas_kernels.attention import attention


def example(batch, length, heads, head_dim, bias_batch, dtype, seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  q, k, v = (draw(batch, length, heads, head_dim) for _ in range(3))
  bias = draw(bias_batch, heads, length, length) if bias_batch else None
  segments = jnp.asarray(rng.integers(1, 3, (batch, length)).cumsum(axis=1) // 5)
  causal = jnp.tril(jnp.ones((length, length), bool))
  mask = ((segments[:, :, None] == segments[:, None]) & causal[None])[:, None]
  return (q, k, v, bias), mask, draw(batch, length, heads, head_dim)


@functools.partial(jax.jit, static_argnums=0)
def run(implementation, inputs, mask, weight):
  """What attention gives, and its gradients."""
  call = lambda *arrays: attention(*arrays, mask=mask, implementation=implementation)
  out, back = jax.vjp(call, *inputs)
  return out, back(weight)


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 2e-6), ('bfloat16', 2e-2)])
@pytest.mark.parametrize(
  ('batch', 'length', 'heads', 'head_dim', 'bias_batch'),
  [(1, 1, 1, 1, 0), (3, 17, 2, 5, 0), (3, 17, 2, 5, 1), (2, 33, 3, 8, 2), (1, 24, 4, 16, 1)],
)
def test_equals_the_reference_and_its_gradient(
  batch, length, heads, head_dim, bias_batch, dtype, tolerance, monkeypatch
):
  inputs, mask, weight = example(batch, length, heads, head_dim, bias_batch, dtype)
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), inputs)
  expected = run('reference', wide, mask, weight.astype(jnp.float32))
  monkeypatch.setattr(kernels, 'TILE', 8)
  for implementation in ('xla', 'tiled'):
    actual = run(implementation, inputs, mask, weight)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for mine, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
      assert mine.dtype == dtype
      assert mine.shape == theirs.shape
      scale = 1 + np.abs(theirs).max()
      np.testing.assert_allclose(mine.astype(np.float32) / scale, theirs / scale, atol=tolerance)


@pytest.mark.parametrize('groups', [1, 2])
def test_heads_that_share_keys_see_them_as_if_they_were_repeated(groups, monkeypatch):
  (q, k, v, bias), mask, weight = example(2, 17, 4, 8, 1, 'float32')
  monkeypatch.setattr(kernels, 'TILE', 8)

  @functools.partial(jax.jit, static_argnums=(0, 1))
  def run(implementation, repeats, *few):
    def attend(q, k, v):
      k, v = (jnp.repeat(x, repeats, axis=2) for x in (k, v))
      return attention(q, k, v, bias, mask=mask, implementation=implementation)

    out, back = jax.vjp(attend, *few)
    return out, back(weight)

  few = q, k[:, :, :groups], v[:, :, :groups]
  expected = run('reference', 4 // groups, *few)
  for implementation in kernels.IMPLEMENTATIONS:
    found = run(implementation, 1, *few)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected)
  with pytest.raises(ValueError, match='4 heads of queries are no multiple of 3'):
    attention(q, k[:, :, :3], v[:, :, :3], mask=mask)


def test_a_masked_key_has_no_weight_and_no_gradient():
  (q, k, v, bias), mask, weight = example(2, 9, 2, 4, 1, 'float32')
  call = lambda v: (attention(q, k, v, bias, mask=mask) * weight)[:, :4].sum()
  slope = np.asarray(jax.jit(jax.grad(call))(v))
  assert not np.any(slope[:, 4:])
  assert np.any(slope[:, :4])


def test_scores_of_any_size_stay_finite():
  (q, k, v, _), mask, _ = example(2, 9, 2, 4, 0, 'float32')
  out = attention(1e4 * q, k, v, mask=mask)
  assert np.isfinite(out).all()


def test_wrong_choices_are_named():
  (q, k, v, bias), mask, _ = example(2, 9, 2, 4, 1, 'float32')
  with pytest.raises(ValueError, match='flash'):
    attention(q, k, v, mask=mask, implementation='flash')
  with pytest.raises(ValueError, match='bias'):
    attention(q, k, v, bias[:, :1], mask=mask)
