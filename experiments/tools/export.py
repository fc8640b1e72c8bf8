# SPDX-License-Identifier: Apache-2.0
"""A trained model for other programs: a Hugging Face folder, or arrays.

python -m experiments.tools.export MODEL --hf=OUT [--layout=llama] | --npz=OUT.npz

If BOS is not one of the model's ids, it becomes an added token of the Hugging Face folder. Its
logit is 0, so it takes some probability from the other ids; bits per byte of both forms are
printed. The npz file has all variables by their paths (bfloat16 as float32), and the module's
fields as JSON in `module`.
"""

import io
import json

import numpy as np
from absl import flags

from experiments.tools import command, models
from lib import atomic, language_model
from lib.errors import InputError
from lib.language_model import TrainedModel, modules
from lib.language_model.trained_model import flat

flags.adopt_module_key_flags(models)
HF = flags.DEFINE_string('hf', '', 'New Hugging Face folder.')
NPZ = flags.DEFINE_string('npz', '', 'New file of arrays.')
LAYOUT = flags.DEFINE_string('layout', '', 'Layout of the folder; by default the first that fits.')
SOURCE = flags.DEFINE_string(
  'source', '', 'Text that both forms are scored on; by default the training text, else stdlib.'
)
LIMIT = flags.DEFINE_integer('limit_bytes', 20_000, 'Most bytes of text.', lower_bound=1)


def execute(*folders: str) -> None:
  """Writes the Hugging Face folder or the npz file."""
  if bool(HF.value) == bool(NPZ.value):
    raise InputError('give one of --hf=FOLDER and --npz=FILE.')
  path = models.check_new(NPZ.value) if NPZ.value else None
  model = models.open_model(*folders)
  if path:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays(model))
    atomic.write(path, buffer.getvalue())
    print(f'{path}: {path.stat().st_size / 2**20:.1f} MiB')
    return
  texts = []
  if model.tokenizer is not None:
    source = SOURCE.value or model.provenance.text or 'stdlib'
    texts = models.open_texts(model, source, 'test', LIMIT.value)
  model.export(HF.value, LAYOUT.value)
  written = language_model.load(HF.value)
  print(f'{HF.value}: the layout {written.provenance.config["model_type"]}')
  if texts:
    for name, one in (('the model', model), ('what was written', written)):
      bits = one.bits_per_byte(texts)
      print(
        f'{bits.value:.5f} bits per byte of {name}, on {sum(map(len, texts)):,} bytes of {source}'
      )


def arrays(model: TrainedModel) -> dict[str, np.ndarray]:
  """All variables by their paths, in dtypes that numpy has, and the module as JSON."""
  known = lambda array: array.astype(np.float32) if array.dtype.kind == 'V' else array
  return {name: known(array) for name, array in flat(model.variables).items()} | {
    'module': np.array(json.dumps(modules.to_json(model.module)))
  }


if __name__ == '__main__':
  command.main('export', execute, more=True)
