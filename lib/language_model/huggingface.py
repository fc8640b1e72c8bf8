# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders of causal models, read and written as a `TrainedModel`.

  config.json         the layout and its sizes (`lib.language_model.layouts`)
  model.safetensors   the weights; or several files, with model.safetensors.index.json
  tokenizer.json      the tokenizer, if there is one

Sizes are checked against the headers of the files before memory is allocated. If BOS is one of the
model's ids, our BOS vector is a copy of that row, which only `TrainedModel.with_tables` uses.
"""

import contextlib
import functools
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes  # noqa: F401 - numpy knows bfloat16 by it
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from safetensors import safe_open
from safetensors.numpy import save_file

from lib import atomic, errors
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.language_model import layouts
from lib.language_model.layouts import LAYOUTS
from lib.language_model.trained_model import Provenance, TrainedModel
from lib.models.decoder import Decoder, LanguageModel
from lib.parallel import sharding
from lib.parameters import Declaration, Description, describe_model, path_name
from lib.tokenizers import foreign, registry

CONFIG, WEIGHTS, TOKENIZER = 'config.json', 'model.safetensors', 'tokenizer.json'
INDEX = f'{WEIGHTS}.index.json'
LARGEST = 2**26  # most bytes of a JSON file
FILE = 2**31  # most bytes of a file of weights that is written, unless one tensor is larger
DTYPES = {'F32': 'float32', 'BF16': 'bfloat16', 'F16': 'float16'}
UNUSED = (
  '.rotary_emb.inv_freq',
  '.attn.bias',
  '.attn.masked_bias',
)  # tensors of older files that are ignored
BOS_VECTOR = 'params/embedding/bos'
described = functools.cache(describe_model)


class Tensor(NamedTuple):
  """A tensor in a file.

  Attributes:
    read: returns the array, on the host.
    shape: its shape.
    dtype: its dtype, as named in the file.
  """

  read: Callable[[], np.ndarray]
  shape: tuple[int, ...]
  dtype: str


class Place(NamedTuple):
  """The tensors that contain one of our parameters.

  Attributes:
    names: names of the tensors: one for each layer, or one.
    stacked: whether our parameter has a leading axis of layers.
    shape: shape of our parameter, without the layers.
    stored: shape of each tensor.
    turned: whether a tensor is a matrix [out, in].
    part: index of the tensor's column block that is our parameter.
    parts: number of column blocks of the tensor.
  """

  names: tuple[str, ...]
  stacked: bool
  shape: tuple[int, ...]
  stored: tuple[int, ...]
  turned: bool
  part: int
  parts: int

  def from_file(self, array: np.ndarray) -> np.ndarray:
    """Our array from a tensor: a view of it."""
    array = array.T if self.turned else array
    return np.split(array, self.parts, axis=-1)[self.part].reshape(self.shape)

  def to_file(self, array: np.ndarray) -> np.ndarray:
    """A tensor, or its column block, from our array."""
    if self.turned:
      return array.reshape(self.stored[::-1]).T
    return array.reshape(*self.stored[:-1], self.stored[-1] // self.parts)


def place_of(layout: str, path: str, leaf: Any, declared: Mapping[str, Declaration]) -> Place:
  """The tensors of a layout that contain the parameter with this path and shape."""
  told = LAYOUTS[layout]
  where, _, leaf_name = path.removeprefix('params/').rpartition('/')
  is_table = f'{where}/{leaf_name}' in told.weights
  where = f'{where}/{leaf_name}' if is_table else where
  template = told.weights[where] + ('.bias' if leaf_name == 'bias' else '.weight')
  columns = [ours for ours, theirs in told.weights.items() if theirs == told.weights[where]]
  stacked = '{}' in template
  shape = leaf.shape[1:] if stacked else leaf.shape
  inputs = declared.get(path, Declaration()).inputs
  sides = math.prod(shape[:inputs]), math.prod(shape[inputs:]) * len(columns)
  turned = inputs > 0 and told.transposed
  stored = tuple(shape) if is_table else sides[::-1] if turned else sides if inputs else sides[1:]
  layers = range(leaf.shape[0]) if stacked else [0]
  return Place(
    tuple(template.format(layer) for layer in layers), stacked, tuple(shape), stored, turned,
    columns.index(where), len(columns),
  )  # fmt: skip


def is_folder(path: pathlib.Path) -> bool:
  """Whether there is a config.json."""
  return (path / CONFIG).is_file()


def read_shape(path: pathlib.Path) -> layouts.Shape:
  """The model that the config.json of a folder describes; raises InputError that names the file."""
  with errors.refused(f'{path / CONFIG} does not describe a valid model'):
    return layouts.read(_json(path / CONFIG))


def load(path: str | os.PathLike, mesh: Mesh | None = None) -> TrainedModel:
  """Reads a folder of one of the `LAYOUTS`; weights keep their dtype.

  The host has one tensor in memory: it is copied to its devices before the next is read.

  Args:
    path: the folder.
    mesh: devices over which the weights are sharded; None: one device.

  Raises:
    InputError: another layout, an option that is not supported, or a damaged file.
  """
  path = pathlib.Path(path)
  shape = read_shape(path)
  with _tensors(path) as tensors:
    variables = _variables(path, shape, tensors, mesh)
  if shape.bos is not None:
    embedding = variables['params']['embedding']
    embedding['bos'] = embedding['table'][shape.bos]
  tokenizer = registry.load(path / TOKENIZER) if (path / TOKENIZER).exists() else None
  changes = (f'read from a Hugging Face folder of the layout {shape.layout}',)
  provenance = Provenance(config=shape.config, changes=changes)
  with errors.refused(f'{path} does not describe a valid model'):
    return TrainedModel(
      shape.module, variables, tokenizer, shape.context, shape.bos, provenance, mesh, shape.ends
    )


def _places(
  path: pathlib.Path, shape: layouts.Shape, tensors: Mapping[str, Tensor]
) -> tuple[Description, dict[str, Place]]:
  """The variables of a model, and where each is; raises InputError for tensors that do not fit.

  It reads the headers of the files alone.
  """
  layers = shape.module.decoder.layers
  if layers > len(tensors):  # checked before a name is made for each
    raise InputError(f'{layers} layers cannot be in {path}: it has {len(tensors)} tensors.')
  with errors.refused(f'{path / CONFIG} does not describe a valid model'):
    wanted = described(shape.module)
  at = lambda key, leaf: place_of(shape.layout, key, leaf, wanted.declared)
  leaves = {
    path_name(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(wanted.shapes)
  }
  places = {key: at(key, leaf) for key, leaf in leaves.items() if key != BOS_VECTOR}
  _check(path, places, tensors, shape.module.embedding.tied)
  return wanted, places


def _variables(
  path: pathlib.Path, shape: layouts.Shape, tensors: Mapping[str, Tensor], mesh: Mesh | None
) -> dict[str, Any]:
  """The variables of a model, each array on its devices."""
  wanted, places = _places(path, shape, tensors)

  def read(keys: tuple, leaf: Any, whole: Sharding) -> jax.Array:
    key = path_name(keys)
    if key == BOS_VECTOR:
      return jnp.zeros(leaf.shape, leaf.dtype, device=whole)
    place = places[key]
    one = _without_layers(whole) if place.stacked else whole
    put = lambda name: sharding.put(place.from_file(tensors[name].read()), one)
    if not place.stacked:
      return put(place.names[0])
    dtype = DTYPES[tensors[place.names[0]].dtype]
    stack = jnp.zeros(leaf.shape, dtype, device=whole)
    for layer, name in enumerate(place.names):
      stack = _put_layer(whole)(stack, put(name), layer)
    return stack

  if mesh is None:
    alone = SingleDeviceSharding(jax.devices()[0])
    over: Any = jax.tree.map(lambda leaf: alone, wanted.shapes)
  else:
    over = sharding.shardings(wanted.shapes, wanted.declared, mesh)
  with errors.refused(f'the weights in {path} cannot be read'):
    return jax.tree_util.tree_map_with_path(read, wanted.shapes, over)


def _check(
  path: pathlib.Path, places: Mapping[str, Place], tensors: Mapping[str, Tensor], tied: bool
) -> None:
  """Raises InputError for the first tensor that is missing, unknown, or of another kind."""
  used = {'lm_head.weight'} if tied else set()
  for place in places.values():
    for name in place.names:
      if name not in tensors:
        raise InputError(f'the weights in {path} lack {name} {list(place.stored)}.')
      found, first = tensors[name], tensors[place.names[0]]
      if found.shape != place.stored:
        raise InputError(
          f'{name} in {path} has the shape {list(found.shape)}; its config.json requires '
          f'{list(place.stored)}.'
        )
      if found.dtype not in DTYPES or found.dtype != first.dtype:
        raise InputError(
          f'{name} in {path} is {found.dtype}: it must be one of {", ".join(DTYPES)}, the same in '
          'all layers.'
        )
      used.add(name)
  if more := [name for name in tensors if name not in used and not name.endswith(UNUSED)]:
    raise InputError(f'{more[0]} in {path} is not a tensor of its layout.')


def _without_layers(whole: Sharding) -> Sharding:
  """The sharding of one layer of a stacked array."""
  if isinstance(whole, NamedSharding):
    return NamedSharding(whole.mesh, PartitionSpec(*whole.spec[1:]))
  return whole


@functools.cache
def _put_layer(whole: Sharding) -> Callable[..., jax.Array]:
  """(layers, one layer, its index) -> the layers with this one replaced, in the same memory."""
  put = lambda stack, layer, index: stack.at[index].set(layer)
  return jax.jit(put, donate_argnums=0, out_shardings=whole)


@contextlib.contextmanager
def _tensors(path: pathlib.Path) -> Iterator[dict[str, Tensor]]:
  """The tensors of a folder by name, while its files are open."""
  names = None
  if (path / INDEX).exists():
    names = _json(path / INDEX).get('weight_map')
    if not isinstance(names, dict) or not all(_is_plain(file) for file in names.values()):
      raise InputError(f'{path / INDEX} must map tensors to .safetensors files in its own folder.')
  with contextlib.ExitStack() as stack:
    found: dict[str, Tensor] = {}
    for file in [WEIGHTS] if names is None else sorted(set(names.values())):
      with errors.refused(f'{path / file} is not a safetensors file'):
        opened = stack.enter_context(safe_open(path / file, framework='numpy'))
        for name in opened.keys():  # noqa: SIM118 - no mapping
          part = opened.get_slice(name)
          read = functools.partial(opened.get_tensor, name)
          if name in found or (names is not None and names.get(name) != file):
            raise InputError(f'the tensor {name} has another place in {INDEX}')
          found[name] = Tensor(read, tuple(part.get_shape()), part.get_dtype())
    if 'wte.weight' in found:  # a GPT-2 without its LM head
      prefix = 'transformer.'
      found = {name if name.startswith('lm_head') else prefix + name: one
               for name, one in found.items()}  # fmt: skip
    yield found


def _is_plain(file: Any) -> bool:
  return isinstance(file, str) and file.endswith('.safetensors') and not {'/', '\\', '\0'} & {*file}


def _json(file: pathlib.Path) -> dict[str, Any]:
  """The object in a JSON file."""
  try:
    if file.stat().st_size > LARGEST:
      raise InputError(f'{file} has more than {LARGEST} bytes.')
    found = json.loads(file.read_bytes())
  except OSError as error:
    raise InputError(f'cannot read {file}: {error.strerror}.') from error
  except (ValueError, RecursionError) as error:
    raise InputError(f'{file} is not JSON: save or fetch it again.') from error
  if not isinstance(found, dict):
    raise InputError(f'{file} must contain one JSON object.')
  return found


def save(model: TrainedModel, path: str | os.PathLike, layout: str = '') -> None:
  """Writes a model's folder; see `TrainedModel.export`."""
  path = pathlib.Path(path)
  atomic.check_free(path)
  module, params, bos = _plain(model)
  name, config, module = _said(model, module, bos, layout)
  told = described(module)
  wanted = {path_name(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(told.shapes)}
  columns: dict[str, list[tuple[str, Place, int]]] = {}  # bytes of each tensor
  for key, leaf in wanted.items():
    if key != BOS_VECTOR:
      place = place_of(name, key, leaf, told.declared)
      for layer, tensor in enumerate(place.names):
        columns.setdefault(tensor, []).append((key, place, layer))

  def numbers(tensor: str) -> np.ndarray:
    parts = []
    for key, place, layer in sorted(columns[tensor], key=lambda one: one[1].part):
      array = params.get(key)
      if array is None:  # a bias that our module does not have
        dtype = params['params/decoder/final_norm/scale'].dtype
        parts.append(np.zeros(place.stored[-1] // place.parts, dtype))
      else:
        parts.append(place.to_file(np.asarray(array[layer] if place.stacked else array)))
    return np.ascontiguousarray(np.concatenate(parts, axis=-1))

  tokenizer = None
  if model.tokenizer is not None:
    tokenizer = foreign.to_json(model.tokenizer, bos)
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic.folder(path) as partial:
    _write_weights(partial, list(columns), numbers)
    (partial / CONFIG).write_text(json.dumps(config, indent=1))
    if tokenizer is not None:
      (partial / TOKENIZER).write_bytes(tokenizer)


def _plain(model: TrainedModel) -> tuple[LanguageModel, dict[str, Any], int | None]:
  """An equal model whose embedding is `Learned`, its parameters by path, and its BOS.

  If BOS is not one of the V ids, it becomes an additional id. Its row of the LM head is zero, so
  the tables are no longer tied.
  """
  embedding = model.module.embedding
  if getattr(embedding, 'back', 0):
    raise InputError(f'no layout can express an embedding of the class {type(embedding).__name__}.')
  tables = model.embedding_tables()
  if tables.bias is not None:
    raise InputError('no layout can express an LM head with a bias.')
  scale = getattr(embedding, 'logit_scale', 1.0)
  tied = getattr(embedding, 'tied', False) and scale == 1
  rows, head = np.asarray(tables.input), np.asarray(tables.output)
  if scale != 1:
    head = head * np.asarray(scale, head.dtype)
  bos = model.bos
  if bos == len(rows):
    encode: Any = lambda bound: bound.embedding.encode(jnp.array([[bos]]), None)
    vector = np.asarray(model.module.apply(model.variables, method=encode))[0]
    rows, tied = np.concatenate([rows, vector.astype(rows.dtype)]), False
    head = np.concatenate([head, np.zeros_like(vector, head.dtype)])
  size, dim = rows.shape
  plain = Learned(size, dim, tied=tied, dtype=model.module.decoder.dtype)
  params = {
    f'params/decoder/{path_name(key)}': leaf
    for key, leaf in jax.tree_util.tree_leaves_with_path(model.variables['params']['decoder'])
  }
  params |= {'params/embedding/table': rows, 'params/embedding/lm_head_table': head}
  return LanguageModel(plain, model.module.decoder), params, bos


def _said(
  model: TrainedModel, module: LanguageModel, bos: int | None, layout: str
) -> tuple[str, layouts.Config, LanguageModel]:
  """The first layout that can express a model, with its config and the module that this means.

  Raises:
    InputError: no layout can express the model, or the requested layout cannot.
  """
  own = str(model.provenance.config.get('model_type', ''))
  if layout and layout not in LAYOUTS:
    raise InputError(f'the layout {layout!r} is not supported: use one of {", ".join(LAYOUTS)}.')
  if not isinstance(module.decoder, Decoder):
    kind = type(module.decoder).__name__
    raise InputError(f'no layout can express a {kind}: only a Decoder is written.')
  names = [layout] if layout else [own] * (own in LAYOUTS) + list(LAYOUTS)
  reasons = []
  for name in names:
    bias, decoder = LAYOUTS[name].decoder.get('bias', False), module.decoder
    if decoder.position != 'learned':
      decoder = decoder.clone(max_length=model.context)
    if bias and not decoder.bias:  # zeros are written
      decoder = decoder.clone(bias=bias)
    said = module.clone(decoder=decoder)
    try:
      return name, layouts.write(name, said, bos, model.ends), said
    except InputError as error:
      reasons.append(str(error))
  raise InputError(' '.join(dict.fromkeys(reasons)))


def _write_weights(
  folder: pathlib.Path, names: list[str], numbers: Callable[[str], np.ndarray]
) -> None:
  """Writes files of at most `FILE` bytes, or of one tensor; the host has one file in memory at
  once.
  """
  files: list[list[str]] = []
  held: dict[str, np.ndarray] = {}

  def flush() -> None:
    save_file(held, folder / f'{len(files)}.partial', metadata={'format': 'pt'})
    files.append(list(held))
    held.clear()

  for name in names:
    array = numbers(name)
    if held and sum(one.nbytes for one in held.values()) + array.nbytes > FILE:
      flush()
    held[name] = array
  flush()
  final = [f'model-{i + 1:05}-of-{len(files):05}.safetensors' for i in range(len(files))]
  if len(files) == 1:
    final = [WEIGHTS]
  else:
    of = {name: file for file, some in zip(final, files, strict=True) for name in some}
    (folder / INDEX).write_text(json.dumps({'metadata': {}, 'weight_map': of}, indent=1))
  for i, name in enumerate(final):
    os.rename(folder / f'{i}.partial', folder / name)
