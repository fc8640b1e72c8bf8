# SPDX-License-Identifier: Apache-2.0
"""The decoder and its step in PyTorch, as one writes them there; no other module imports torch."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lib.models.decoder import LanguageModel
from lib.models.positions import causal_distances, t5_buckets

ACTIVATIONS = {'relu': F.relu, 'gelu': F.gelu, 'silu': F.silu}


def parameter(values: Any) -> nn.Parameter:
  """A copy of an array that is trained."""
  return nn.Parameter(torch.tensor(np.asarray(values)))


class Norm(nn.Module):
  """LayerNorm without a bias, or RMSNorm."""

  def __init__(self, kind: str, scale: Any):
    super().__init__()
    self.scale, self.layer = parameter(scale), kind == 'layer'

  def forward(self, x):
    """Of vectors [B, T, D]."""
    if self.layer:
      return F.layer_norm(x, self.scale.shape, self.scale, None, 1e-5)
    return F.rms_norm(x, self.scale.shape, self.scale, 1e-5)


class Block(nn.Module):
  """One layer; query, key and value are one product."""

  def __init__(self, decoder: Any, params: Mapping[str, Any]):
    super().__init__()
    self.heads, self.activation = decoder.heads, ACTIVATIONS[decoder.activation]
    kernel = lambda name: np.asarray(params[name]['kernel'])
    into = [kernel(name).reshape(decoder.dim, -1) for name in ('query', 'key', 'value')]
    self.into = parameter(np.concatenate(into, axis=1).T)
    self.out = parameter(kernel('out').reshape(-1, decoder.dim).T)
    self.up, self.down = parameter(kernel('up').T), parameter(kernel('down').T)
    self.gate = parameter(kernel('gate').T) if decoder.gated else None
    self.attention_norm = Norm(decoder.norm, params['attention_norm']['scale'])
    self.mlp_norm = Norm(decoder.norm, params['mlp_norm']['scale'])

  def forward(self, x, bias):
    """Of the residual stream [B, T, D]; attention has a bias [1, H, T, T] or is causal."""
    batch, length, _ = x.shape
    qkv = F.linear(self.attention_norm(x), self.into)
    q, k, v = qkv.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
    mask = None if bias is None else bias.to(q.dtype)
    mixed = F.scaled_dot_product_attention(q, k, v, mask, is_causal=bias is None)
    x = x + F.linear(mixed.transpose(1, 2).reshape(batch, length, -1), self.out)
    normed = self.mlp_norm(x)
    inner = self.activation(F.linear(normed, self.up))
    if self.gate is not None:
      inner = inner * F.linear(normed, self.gate)
    return x + F.linear(inner, self.down)


class Peer(nn.Module):
  """Inputs and targets [B, T] to nats a token: of trained rows, learned or T5 positions, no biases.

  Every row is one document.
  """

  def __init__(self, model: LanguageModel, params: Mapping[str, Any], length: int):
    super().__init__()
    decoder: Any = model.decoder
    rows, tree = params['embedding'], params['decoder']
    embedding: Any = model.embedding
    self.scale = embedding.logit_scale
    self.table, self.bos = parameter(rows['table']), parameter(rows['bos'])
    self.lm_head = self.table if embedding.tied else parameter(rows['lm_head_table'])
    self.positions = parameter(tree['positions']) if decoder.position == 'learned' else None
    self.t5 = parameter(tree['t5']['bias']) if decoder.position == 't5' else None
    if self.t5 is not None:
      distance = causal_distances(length)[0]
      bucket = t5_buckets(length, self.t5.shape[1], decoder.max_distance)[np.maximum(distance, 0)]
      self.register_buffer('bucket', torch.tensor(bucket))
      self.register_buffer('hidden', torch.tensor(distance < 0))
    of_layer = lambda layer: jax.tree.map(lambda stack: stack[layer], tree['blocks'])
    self.blocks = nn.ModuleList(Block(decoder, of_layer(i)) for i in range(decoder.layers))
    self.final_norm = Norm(decoder.norm, tree['final_norm']['scale'])

  def forward(self, inputs, targets):
    """The mean of all."""
    bias = None
    x = F.embedding(inputs, torch.cat([self.table, self.bos[None]]))
    if self.positions is not None:
      x = x + self.positions[: inputs.shape[1]]
    if self.t5 is not None:
      bias = self.t5[:, self.bucket].masked_fill(self.hidden, -torch.inf)[None]
    for block in self.blocks:
      x = block(x, bias)
    logits = F.linear(self.final_norm(x) * self.scale, self.lm_head)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def step(
  model: LanguageModel,
  params: Mapping[str, Any],
  batch: Mapping[str, np.ndarray],
  *,
  rate: float,
  decay: float,
  dtype: str,
  compiled: bool,
) -> Callable[[], float]:
  """What runs one training step (AdamW) on the batch, and returns its loss.

  Args:
    model: ours.
    params: its parameters; the peer begins with copies.
    batch: whole rows [B, T].
    rate: of learning.
    decay: of the matrices of blocks, times the rate.
    dtype: 'float32', or 'bfloat16' by autocast, with the parameters in float32.
    compiled: by `torch.compile`.
  """
  peer = Peer(model, params, batch['inputs'].shape[1])
  matrices = [p for block in peer.blocks for p in block.parameters() if p.ndim == 2]
  others = [p for p in peer.parameters() if not any(p is matrix for matrix in matrices)]
  chain = torch.optim.AdamW(
    [{'params': matrices, 'weight_decay': decay}, {'params': others, 'weight_decay': 0.0}],
    rate, betas=(0.9, 0.95), eps=1e-8, fused=True,
  )  # fmt: skip
  inputs, targets = (torch.tensor(batch[name], dtype=torch.long) for name in ('inputs', 'targets'))
  loss_of = torch.compile(peer) if compiled else peer

  def run() -> float:
    chain.zero_grad()
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype == 'bfloat16'):
      loss = loss_of(inputs, targets)
    loss.backward()
    chain.step()
    return loss.item()

  return run
