# SPDX-License-Identifier: Apache-2.0
"""Growing a decoder: each layer is trained on top of frozen ones (arXiv 2507.07129).

The paper trains one block, freezes it, adds another and trains that alone. Here the LM head and the
last norm are trained at every stage, and the other parameters of its input (the BOS vector) in
the first stage alone. The paper's LoRA on older layers, from the third on, is left out.

Variables of a stage of depth d, and the corresponding ones of a language model of d layers:

  params/embedding            params/embedding
  params/decoder/blocks       the last of params/decoder/blocks
  params/decoder/…            params/decoder/… (the norm)
  frozen/embedding            frozen/embedding
  frozen/lower                params/decoder/blocks but the last, if there are others
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lib.models.decoder import LanguageModel

Variables = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Stage:
  """One layer in training above the frozen ones; trained like a Flax module.

  Attributes:
    model: with all layers of the last stage; without learned positions, which lower layers share.
    depth: layers in use, from 1.
  """

  model: LanguageModel
  depth: int

  def init(self, *args: Any, **options: Any) -> Variables:
    """Initial variables of this stage, which are those of the whole model before training."""
    return self.start(self.model.init(*args, **options))

  def apply(self, *args: Any, mutable: Any) -> tuple[jax.Array, dict]:
    """`nats`, and no sown values."""
    return self.nats(*args), {}

  def start(self, variables: Variables) -> Variables:
    """Variables of this stage, from those of a model with at least its layers."""
    params, place = variables['params'], self.depth - 1
    cut = lambda part: jax.tree.map(lambda leaf: leaf[part], params['decoder']['blocks'])
    top = params['decoder'] | {'blocks': cut(slice(place, place + 1))}
    lower = {'lower': cut(slice(place))} if place else {}
    return {
      'params': params | {'decoder': top},
      'frozen': variables.get('frozen', {}) | lower,
    }

  def above(self, trained: Variables, new: Variables) -> Variables:
    """Variables of this stage, from those of `so_far` one stage before and a new top layer.

    Args:
      trained: of the model of one layer fewer.
      new: of this stage, all layers new.
    """
    params = trained['params']
    top = params['decoder'] | {'blocks': new['params']['decoder']['blocks']}
    frozen = trained.get('frozen', {}) | {'lower': params['decoder']['blocks']}
    return {'params': params | {'decoder': top}, 'frozen': frozen}

  @property
  def so_far(self) -> LanguageModel:
    """The model of the layers in use."""
    return self._layers(self.depth)

  def joined(self, variables: Variables) -> Variables:
    """The variables of `so_far`, from those of this stage."""
    params, frozen = variables['params'], dict(variables['frozen'])
    decoder = params['decoder']
    if self.depth > 1:
      join = lambda lower, top: jnp.concatenate([lower, top])
      decoder = decoder | {'blocks': jax.tree.map(join, frozen.pop('lower'), decoder['blocks'])}
    return {'params': params | {'decoder': decoder}} | ({'frozen': frozen} if frozen else {})

  def nats(self, variables: Variables, batch: Mapping[str, jax.Array], key: jax.Array) -> jax.Array:
    """Nats [B, T] as of the language model; only the top layer has gradients."""
    params, frozen = variables['params'], variables['frozen']
    embedding = {'params': params['embedding'], 'frozen': frozen.get('embedding', {})}

    def embed(method: str, *args: Any) -> Any:
      return self.model.embedding.apply(embedding, *args, method=method)

    rows = embed('sample_rows', key, batch)
    x = embed('encode', batch['inputs'], rows)
    if self.depth > 1:
      lower = params['decoder'] | {'blocks': frozen['lower']}
      x = jax.lax.stop_gradient(self._run(self.depth - 1, lower, x, batch)[1][-1])
    hidden = self._run(1, params['decoder'], x, batch)[0]
    return embed('token_loss', hidden, batch['targets'], rows)

  def _layers(self, count: int) -> LanguageModel:
    return self.model.clone(decoder=self.model.decoder.clone(layers=count))

  def _run(self, count: int, params: Mapping, x: jax.Array, batch: Mapping[str, Any]) -> Any:
    """Hidden vectors and residual streams of `count` layers."""
    decoder = self._layers(count).decoder
    return decoder.apply({'params': params}, x, batch['positions'], batch['segments'])


@dataclasses.dataclass(frozen=True)
class Flops:
  """Floating-point operations of training, per token: matrix products alone, 2 per multiply-add.

  A forward pass through a block of width D with an MLP of M is 2·(4D² + 2DM), its attention 4D for
  each token that a token sees, (T + 1) / 2 of T on average; the LM head of V rows is 2VD. Backward
  is twice the forward for trained layers, and nothing for frozen ones below. Inputs, norms and the
  optimiser are small and left out.
  """

  dim: int
  mlp_dim: int
  length: int
  vocab_size: int

  @property
  def block(self) -> int:
    """One layer's forward pass."""
    attention = 2 * (self.length + 1) * self.dim
    return 2 * (4 * self.dim**2 + 2 * self.dim * self.mlp_dim) + attention

  @property
  def lm_head(self) -> int:
    """The LM head's forward pass."""
    return 2 * self.vocab_size * self.dim

  def step(self, trained: int, frozen: int = 0) -> int:
    """A training step of `trained` layers and the LM head above `frozen` layers, per token."""
    return 3 * (trained * self.block + self.lm_head) + frozen * self.block
