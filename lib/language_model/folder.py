# SPDX-License-Identifier: Apache-2.0
"""A trained model as a folder: its description, weights and tokenizer.

  model.json           module (`lib.language_model.modules`), context, BOS, provenance, and size and
                       sha256 of the other files; its field `sha256` covers all other fields
  weights.safetensors  the variables by their paths, such as params/decoder/final_norm/scale
  tokenizer            the tokenizer's file, with the byte model if the tokenizer needs one

Everything is checked before it is used: checksums first, then names and shapes of the weights
against those of the module. Nothing is unpickled.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Container, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lib import atomic
from lib.errors import InputError
from lib.language_model import huggingface, modules
from lib.language_model.trained_model import Provenance, TrainedModel, flat
from lib.models.decoder import LanguageModel
from lib.parallel import sharding
from lib.parameters import Description, path_name
from lib.tokenizers import registry
from lib.train.state import check_same_shapes

FORMAT, VERSION = 'language-model', 1
MODEL, WEIGHTS, TOKENIZER = 'model.json', 'weights.safetensors', 'tokenizer'
LARGEST = 2**24  # most bytes of a model.json


def save(model: TrainedModel, path: str | os.PathLike) -> None:
  """Writes a model's folder; see `TrainedModel.save`."""
  path = pathlib.Path(path)
  atomic.check_free(path)
  description = {
    'format': FORMAT,
    'version': VERSION,
    'module': modules.to_json(model.module),
    'context': model.context,
    'bos': model.bos,
    'ends': list(model.ends),
    'provenance': dataclasses.asdict(model.provenance),
  }
  try:
    json.dumps(description, allow_nan=False)
  except (TypeError, ValueError) as error:
    raise InputError(f'the provenance of a model must be JSON-like values: {error}.') from error
  path.parent.mkdir(parents=True, exist_ok=True)
  with atomic.folder(path) as partial:
    arrays = {name: np.asarray(array, order='C') for name, array in flat(model.variables).items()}
    save_file(arrays, partial / WEIGHTS)
    if model.tokenizer is not None:
      registry.save(model.tokenizer, partial / TOKENIZER)
    description['files'] = {file.name: _facts(file) for file in sorted(partial.iterdir())}
    description['sha256'] = _digest(description)
    (partial / MODEL).write_text(json.dumps(description, indent=1))


def load(path: str | os.PathLike, mesh: Mesh | None = None) -> TrainedModel:
  """Reads the folder that `TrainedModel.save` wrote, or a Hugging Face folder.

  Args:
    path: the folder.
    mesh: devices over which the weights are sharded, one array after another: the host has only
      the parts of one array in memory. None: one device.

  Raises:
    InputError: there is no such folder, or it is damaged or of another kind.
  """
  path = pathlib.Path(path)
  if huggingface.is_folder(path) and not (path / MODEL).exists():
    return huggingface.load(path, mesh)
  description = _read(path)
  with _rebuilding(path / MODEL):
    module = modules.from_json(description['module'])
    if not isinstance(module, LanguageModel):
      raise InputError(f'its module is a {type(module).__name__}, not a LanguageModel.')
    provenance = _provenance(description['provenance'])
    context, bos = description['context'], description['bos']
    ends = tuple(description.get('ends', ()))
    if {type(number) for number in (context, *ends)} != {int} or type(bos) not in (int, type(None)):
      raise InputError(
        f'context, bos and ends must be whole numbers; got {context!r}, {bos!r} and {ends!r}.'
      )
    wanted = huggingface.described(module)
  variables = _weights(path / WEIGHTS, wanted, mesh)
  tokenizer = registry.load(path / TOKENIZER) if TOKENIZER in description['files'] else None
  with _rebuilding(path / MODEL):
    return TrainedModel(module, variables, tokenizer, context, bos, provenance, mesh, ends)


def _read(path: pathlib.Path) -> dict[str, Any]:
  """Reads a model.json, and checks its checksum and those of the other files."""
  file = path / MODEL
  try:
    if file.stat().st_size > LARGEST:
      raise InputError(f'{file} is not a model description: it has more than {LARGEST} bytes.')
    content = file.read_bytes()
  except OSError as error:
    raise InputError(
      f'{path} is not a trained model: cannot read its {MODEL} ({error.strerror}), and there is no '
      'config.json.'
    ) from error
  try:
    description = json.loads(content)
    if not isinstance(description, dict) or description.get('format') != FORMAT:
      raise InputError(f'{file} does not describe a model: its format should be {FORMAT!r}.')
    if description.get('version') != VERSION:
      raise InputError(
        f'{file} has version {description.get("version")!r}; this program reads version {VERSION}.'
      )
    digest = description.pop('sha256', None)
    if digest != _digest(description):
      raise InputError(f'{file} is damaged: its checksum differs; save or fetch the model again.')
  except (ValueError, RecursionError) as error:
    raise InputError(
      f'{file} is damaged: it is not JSON; save or fetch the model again.'
    ) from error
  files = description.get('files')
  if not isinstance(files, dict) or not {WEIGHTS} <= files.keys() <= {WEIGHTS, TOKENIZER}:
    raise InputError(f'{file} must name the files {WEIGHTS} and {TOKENIZER}, and no others.')
  missing = {'module', 'context', 'bos', 'provenance'} - description.keys()
  if missing:
    raise InputError(f'{file} lacks {", ".join(sorted(missing))}.')
  for name, facts in files.items():
    if facts != _facts(path / name):
      raise InputError(
        f'{path / name} is damaged: its size or checksum is not that of {MODEL}; save or fetch the '
        'model again.'
      )
  return description


def _facts(file: pathlib.Path) -> dict[str, Any]:
  """Size and checksum of a file."""
  try:
    with file.open('rb') as opened:
      digest = hashlib.file_digest(opened, 'sha256').hexdigest()
      return {'bytes': os.fstat(opened.fileno()).st_size, 'sha256': digest}
  except OSError as error:
    raise InputError(f'cannot read {file}: {error.strerror}.') from error


def _digest(description: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _rebuilding(file: pathlib.Path) -> Iterator[None]:
  """Turns any error while a model is built from the file into an InputError that names the file.

  A checksum detects damage but not a malicious author: the file may contain any value.
  """
  try:
    yield
  except Exception as error:
    reason = str(error).split('\n')[0][:300]
    raise InputError(f'{file} does not describe a valid model: {reason}') from error


def _provenance(description: Any) -> Provenance:
  made = Provenance(**description)
  return dataclasses.replace(made, seeds=tuple(made.seeds), changes=tuple(made.changes))


def _weights(file: pathlib.Path, wanted: Description, mesh: Mesh | None) -> dict[str, Any]:
  """The variables of a safetensors file, checked against the expected names and shapes."""
  known = {path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(wanted.shapes)}
  try:
    with safe_open(file, framework='numpy') as opened:
      shape_of = lambda name: jax.ShapeDtypeStruct(opened.get_slice(name).get_shape(), np.float32)
      stored = {_todays(name, known): name for name in opened.keys()}  # noqa: SIM118 - no mapping
      found = {name: shape_of(old) for name, old in stored.items()}
      check_same_shapes(found, wanted.shapes, f'the weights in {file}')

      def read(path: tuple, leaf: jax.ShapeDtypeStruct, place: NamedSharding | None) -> jax.Array:
        name = path_name(path)
        part = opened.get_slice(stored[name])
        if part.get_dtype().startswith(('F', 'BF')) != jnp.issubdtype(leaf.dtype, jnp.floating):
          raise InputError(f'{name} in {file} is {part.get_dtype()}, not {leaf.dtype}.')
        if place is None:
          return jnp.asarray(opened.get_tensor(stored[name]))
        return jax.make_array_from_callback(leaf.shape, place, part.__getitem__)

      shapes = wanted.shapes
      if mesh is None:
        return jax.tree_util.tree_map_with_path(lambda path, leaf: read(path, leaf, None), shapes)
      places = sharding.shardings(shapes, wanted.declared, mesh)
      return jax.tree_util.tree_map_with_path(read, shapes, places)
  except (SafetensorError, OSError) as error:
    raise InputError(f'{file} is not a safetensors file: {error}') from error


def _todays(name: str, known: Container[str]) -> str:
  """The path of a weight that is stored as `name`; earlier versions had other names."""
  folder, _, leaf = name.rpartition('/')
  renamed = f'{folder}/{modules.RENAMED.get(leaf, leaf)}'
  return renamed if renamed in known and name not in known else name
