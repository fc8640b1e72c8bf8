# SPDX-License-Identifier: Apache-2.0
"""What commands for a trained model share: loading the model, its devices, and the text."""

import dataclasses
import pathlib
import sys

import jax
import jax.numpy as jnp
from absl import flags

from lib import language_model
from lib.data import sources
from lib.errors import InputError
from lib.language_model import TrainedModel
from lib.parallel import sharding

CONTEXT = flags.DEFINE_integer(
  'context', 0, 'Most tokens that the model reads at once; 0: its whole context.', lower_bound=0
)
DTYPE = flags.DEFINE_enum(
  'dtype', '', ('', 'float32', 'bfloat16'), 'Dtype of activations; by default that of the model.'
)
LARGEST_SEED = 2**31 - 1
SPLITS = ('train', 'validation', 'test')


def open_model(*folders: str) -> TrainedModel:
  """Loads the model that a command is given, sharded over all devices.

  Raises:
    InputError: no folder or several, or as `language_model.load`.
  """
  if len(folders) != 1:
    raise InputError(f'give one folder of a trained model; got {len(folders)} arguments.')
  mesh = sharding.make_mesh({'fsdp': -1}) if jax.device_count() > 1 else None
  model = language_model.load(folders[0], mesh)
  if CONTEXT.value > model.context:
    raise InputError(f'--context={CONTEXT.value} is more than the model reads, {model.context}.')
  if DTYPE.value:
    dtype, module = jnp.dtype(DTYPE.value), model.module
    embedding, decoder = (one.clone(dtype=dtype) for one in (module.embedding, module.decoder))
    model = dataclasses.replace(model, module=module.clone(embedding=embedding, decoder=decoder))
  return dataclasses.replace(model, context=CONTEXT.value or model.context)


def open_texts(model: TrainedModel, source: str, split: str, limit: int) -> list[bytes]:
  """Documents of a split, at most `limit` bytes; warns if the model was trained on them.

  Raises:
    InputError: there is no such text.
  """
  texts = [text for text in sources.sample(sources.open_source(source, split), limit) if text]
  if not texts:
    raise InputError(f'{source} has no text in its {split} split.')
  told = model.provenance
  if split == 'train' and (told.text_digest or told.text):
    same = told.text == source
    if told.text_digest:
      same = sources.describe(source).digest.startswith(told.text_digest)
    if same:
      print(f'warning: this model was trained on the train split of {source}.', file=sys.stderr)
  return texts


def check_new(path: str) -> pathlib.Path:
  """A path of a file that is to be written; raises InputError if there is something already."""
  found = pathlib.Path(path)
  if found.exists():
    raise InputError(f'there is something at {path} already: choose another path, or delete it.')
  if not found.parent.is_dir():
    raise InputError(f'there is no folder {found.parent} for {path}.')
  return found
