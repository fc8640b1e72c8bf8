# SPDX-License-Identifier: Apache-2.0
"""Readout and softmax cross-entropy in one operation: hidden vectors in, nats out.

Legend: N positions (any leading axes), D model width, V vocabulary.
"""

import jax
import jax.numpy as jnp

IMPLEMENTATIONS = ('reference',)


def linear_cross_entropy_reference(
  hidden: jax.Array, table: jax.Array, bias: jax.Array | None, targets: jax.Array
) -> jax.Array:
  """The specification: float32 logits of every id, then log-softmax at the target."""
  logits_nv = jnp.einsum('...d,vd->...v', hidden, table, preferred_element_type=jnp.float32)
  if bias is not None:
    logits_nv = logits_nv + bias.astype(jnp.float32).reshape((1,) * (logits_nv.ndim - 1) + (-1,))
  picked_n = jnp.take_along_axis(logits_nv, targets[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits_nv, axis=-1) - picked_n


def linear_cross_entropy(
  hidden: jax.Array,
  table: jax.Array,
  targets: jax.Array,
  *,
  bias: jax.Array | None = None,
  implementation: str | None = None,
) -> jax.Array:
  """Nats of each target under softmax(hidden · tableᵀ + bias).

  Args:
    hidden: [..., D] in any float dtype.
    table: [V, D] readout rows.
    targets: [...] int32 ids below V.
    bias: [V] or None.
    implementation: None (the fastest measured on this backend) or 'reference', which holds
      the [..., V] logits.

  Returns:
    [...] float32 nats.

  Raises:
    ValueError: an implementation of that name does not exist.
  """
  if implementation not in (None, *IMPLEMENTATIONS):
    raise ValueError(
      f'linear_cross_entropy has no implementation {implementation!r}; choose None or one of '
      f'{", ".join(IMPLEMENTATIONS)}.'
    )
  return linear_cross_entropy_reference(hidden, table, bias, targets)
