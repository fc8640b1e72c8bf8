# SPDX-License-Identifier: Apache-2.0
"""The byte model: a decoder over bytes whose probabilities drive an arithmetic coder.

Encoder and decoder must see the same floats. So the model runs in float32 at the highest precision,
always with the shapes in its file, and its results for a text never depend on the batch: rows do
not interact, and cache slots depend only on the text.

A text may be longer than the context. When the context is full, the model is reset and reads the
newer half again. So both ends see the same part of the text at each byte, and no distance is larger
than in training.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.models.decoder import Decoder, LanguageModel
from lib.tokenizers import base, files

FAMILY = 'byte_model'  # of its file
BOS = 256  # the id that begins a text
BATCH_TOKENS = 2048  # tokens of a batch of whole texts
PARAMETER = 'parameter:'  # before the path of a parameter in a file
STORED = {'embedding/bos': 'embedding/begin'}  # paths in a file, fixed by old fingerprints


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The decoder of the byte model; the paper's is 3 layers of width 256 with 'relative' positions.

  Attributes:
    layers, dim, heads, mlp_dim, head_dim, position, max_distance, gated, activation: see Decoder;
      head_dim 0 is dim / heads.
    context: the most tokens that the byte model reads, BOS included: its length in training.
    streams: texts that it steps in parallel.
  """

  layers: int
  dim: int
  heads: int
  mlp_dim: int
  context: int
  streams: int = 64
  head_dim: int = 0
  position: str = 'relative'
  max_distance: int = 128
  gated: bool = True
  activation: str = 'relu'


@functools.cache
def make(
  sizes: Sizes, dtype: Any = jnp.float32, remat: bool = False, z_loss: float = 0.0
) -> LanguageModel:
  """The module of the byte model, for training, and in float32 for coding.

  Args:
    sizes: of the module.
    dtype: of activations.
    remat: as in `Decoder`.
    z_loss: as in `Learned`.
  """
  decoder = Decoder(
    layers=sizes.layers,
    dim=sizes.dim,
    heads=sizes.heads,
    head_dim=sizes.head_dim or None,
    mlp_dim=sizes.mlp_dim,
    position=sizes.position,
    norm='rms',
    gated=sizes.gated,
    activation=sizes.activation,
    init_std=None,
    max_length=sizes.context,
    max_distance=sizes.max_distance,
    remat=remat,
    dtype=dtype,
  )
  scale = sizes.dim**-0.5
  return LanguageModel(
    Learned(256, sizes.dim, init_std=1.0, logit_scale=scale, z_loss=z_loss, dtype=dtype), decoder
  )


class ByteModel:
  """The byte model with its weights: a `NextByte` of many texts at once, from which `ByteStepper`s
  are made.

  Args:
    sizes: of the module.
    variables: of the module, float32.
  """

  def __init__(self, sizes: Sizes, variables: Mapping[str, Any]):
    if sizes.context < 4 or sizes.streams < 1:
      raise InputError(
        f'M1 with a context of {sizes.context} and {sizes.streams} streams: the context must be 4 '
        'or more and the streams 1 or more'
      )
    self.sizes = sizes
    self.variables = {'params': jax.tree.map(np.asarray, variables['params'])}

  @functools.cached_property
  def parameters(self) -> int:
    """Parameters without embeddings, as the paper counts them."""
    return sum(x.size for x in jax.tree.leaves(self.variables['params']['decoder']))

  @functools.cached_property
  def fingerprint(self) -> str:
    """The sha256, in hex, of sizes and weights: equal exactly for equal models."""
    return base.digest('', self.state())

  def visible_bytes(self, lengths: np.ndarray) -> np.ndarray:
    """Number of last bytes that the byte model sees, int [N], of texts of lengths [N]."""
    half = self.sizes.context // 2
    over = lengths - self.sizes.context
    return np.where(over < 0, lengths, half + over % (self.sizes.context - half))

  def __call__(self, prefixes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Next-byte probabilities after each text, float32 [N, 256]; see `NextByte`."""
    visible = self.visible_bytes(lengths)
    size = 1 << np.ceil(np.log2(np.maximum(visible + 1, 4))).astype(int)  # room for BOS
    out = np.empty((len(lengths), 256), np.float32)
    for room in np.unique(size).tolist():
      where = np.flatnonzero((size == room) & (visible > 0))
      ids = np.zeros((where.size, room), np.int32)
      ids[:, 0] = BOS
      for row, i in enumerate(where):
        ids[row, 1 : visible[i] + 1] = prefixes[i, lengths[i] - visible[i] : lengths[i]]
      out[where] = self._read(ids, visible[where])
    out[visible == 0] = self.start
    return out

  def _read(self, ids: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Probabilities after place `last` [N] of ids [N, T], in parts of one shape."""
    rows = max(BATCH_TOKENS // ids.shape[1], 8)
    parts = []
    for begin in range(0, len(ids), rows):
      part, place = ids[begin : begin + rows], last[begin : begin + rows]
      missing = rows - len(part)
      given = probabilities_at(
        self.sizes,
        self.on_device,
        np.pad(part, ((0, missing), (0, 0))),
        np.pad(place, (0, missing)).astype(np.int32),
      )
      parts.append(np.asarray(given)[: len(part)])
    return np.concatenate(parts) if parts else np.zeros((0, 256), np.float32)

  @functools.cached_property
  def start(self) -> np.ndarray:
    """Next-byte probabilities of the empty text, float32 [256]."""
    ids, last = np.full((8, 4), BOS, np.int32), np.zeros(8, np.int32)
    return np.asarray(probabilities_at(self.sizes, self.on_device, ids, last))[0]

  @functools.cached_property
  def on_device(self) -> Any:
    """The weights where the byte model runs."""
    return jax.device_put(self.variables)

  def state(self) -> base.State:
    """The arrays that define the byte model."""
    leaves = jax.tree_util.tree_flatten_with_path(self.variables['params'])[0]
    sizes = json.dumps(dataclasses.asdict(self.sizes), sort_keys=True)
    paths = ['/'.join(str(key.key) for key in path) for path, _ in leaves]
    parameters = {
      PARAMETER + STORED.get(path, path): np.asarray(leaf)
      for path, (_, leaf) in zip(paths, leaves, strict=True)
    }
    return {'sizes': base.byte_array(sizes.encode()), **parameters}

  @classmethod
  def from_state(cls, state: base.State) -> 'ByteModel':
    """Rebuilds from `state()`; raises InputError where weights and sizes do not fit."""
    sizes = Sizes(**json.loads(state['sizes'].tobytes()))
    params: dict[str, Any] = {}
    paths = {stored: path for path, stored in STORED.items()}
    for name, array in state.items():
      if name.startswith(PARAMETER):
        path = name.removeprefix(PARAMETER)
        *folders, leaf = paths.get(path, path).split('/')
        place = params
        for folder in folders:
          place = place.setdefault(folder, {})
        place[leaf] = array
    found = {'params': params}
    wanted = jax.eval_shape(lambda: variables(sizes))
    if jax.tree.map(jnp.shape, found) != jax.tree.map(jnp.shape, dict(wanted)):
      raise InputError('the weights of M1 do not fit its sizes: make or fetch its file again')
    return cls(sizes, found)

  def save(self, path: str | os.PathLike) -> None:
    """Writes one file with a checksum, atomically."""
    files.write(path, FAMILY, self.state())

  @classmethod
  def load(cls, path: str | os.PathLike) -> 'ByteModel':
    """Reads what `save` wrote; raises InputError for any other or damaged file."""
    family, state = files.read(path)
    if family != FAMILY:
      raise InputError(f'{path} contains a {family!r}, not a byte model')
    with files.rebuilding(path, 'M1'):
      return cls.from_state(state)


def variables(sizes: Sizes) -> Any:
  """Initial variables of the module, with the shapes that all its weights have."""
  ids = jnp.zeros((1, 4), jnp.int32)
  batch = dict.fromkeys(('inputs', 'targets', 'segments', 'positions'), ids)
  return make(sizes).init(jax.random.key(0), batch, jax.random.key(0))


def exact(function: Callable, donate: int | tuple = ()) -> Callable:
  """Compiled for each `Sizes`, with products that are never rounded to fewer bits."""

  @functools.wraps(function)
  def traced(*args):
    with jax.default_matmul_precision('highest'):
      return function(*args)

  return jax.jit(traced, static_argnums=0, donate_argnums=donate)


@exact
def probabilities_at(sizes: Sizes, variables: Any, ids: jax.Array, last: jax.Array) -> jax.Array:
  """Probabilities [N, 256] after place `last` [N] of ids [N, T]."""

  def read(model: LanguageModel) -> jax.Array:
    places = jnp.broadcast_to(jnp.arange(ids.shape[1])[None], ids.shape)
    batch = {'inputs': ids, 'positions': places, 'segments': jnp.ones_like(ids)}
    hidden = jnp.take_along_axis(model.hidden(batch, None)[0], last[:, None, None], axis=1)
    return model.embedding.logits(hidden, None)[:, 0]

  return jax.nn.softmax(cast(jax.Array, make(sizes).apply(variables, method=read)))
