# SPDX-License-Identifier: Apache-2.0
"""What every config shares: the argument after the colon, the mesh, training."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lib.errors import InputError

SCALES = ('smoke', 'cpu', 'gpu', 'paper')


class Scaled(NamedTuple):
  """A value of a config for each scale."""

  smoke: Any
  cpu: Any
  gpu: Any
  paper: Any


# A decoder; the sections of a config say what differs (`experiments.fit.make_decoder`).
MODEL = {
  'layers': 1,
  'dim': 16,
  'heads': 2,
  'head_dim': 0,  # 0: dim / heads
  'mlp_dim': 0,  # 0: four times dim
  'position': 'rotary',  # or learned, t5, relative
  'max_distance': 128,  # that t5 and relative tell apart
  'norm': 'layer',  # or rms
  'gated': False,
  'activation': 'gelu',  # or relu, silu
  'init_std': 0.02,  # of kernels; 0: by fan-in
  'remat': False,  # recompute each layer in the backward pass, to hold less
}
# Its training (`experiments.fit`).
TRAINING = {
  'length': 32,  # tokens of a row
  'batch_size': 8,
  # Lanes of documents that the rows of a batch come from (`lib.data.lanes`); 0: as many as divide
  # the batch, up to 64. A process reads only those of its devices' rows.
  'lanes': Scaled(1, 1, 0, 0),
  'steps': 6,
  'optimizer': 'adamw',  # or muon, adafactor
  'rates': (3e-3,),  # learning rates at their peak; of several the best by validation text
  'rate_share': 0.2,  # of the steps, after which rates are compared
  'schedule': 'cosine',  # or rsqrt, constant
  'warmup': 0.05,  # share of the steps
  'final': 0.1,  # last rate of the cosine, as a share of the peak
  'b2': 0.95,
  'weight_decay': 0.0,
  'clip_norm': 0.0,  # 0: none
  'seeds': 1,
  'side_by_side': 0,  # seeds that train at once, as replicas; 0: one after the other
  # How they train at once: vmap (on all devices together), pmap (on one device each), or auto: pmap
  # if there are enough devices.
  'replicas': Scaled('vmap', 'vmap', 'auto', 'auto'),
  'initial': '',  # folder of a trained model to start from
  'evaluate_every': 100,
  'checkpoint_every': 1000,
}
# M1, the byte model of the tokenizers driven by one (`experiments.coders`). Its norm is RMS and its
# kernels begin by fan-in: its file has no other.
M1 = {
  **{key: value for key, value in MODEL.items() if key not in ('norm', 'init_std')},
  **TRAINING,
  'dim': 32,
  'mlp_dim': 64,
  'position': 't5',
  'gated': True,
  'activation': 'relu',
  'length': 32,  # bytes of a training row and of what M1 sees at most, its begin counted
  'streams': 8,  # texts that a codec reads side by side
  'optimizer': 'muon',
  'rates': (2e-2,),
  'final': 0.01,
  'b2': 0.98,
  'clip_norm': 1.0,
  'z_loss': 1e-4,  # weight of the squared log of the softmax's denominator
  'validation_batches': 1,
}


def build(arg: str, tables: Sequence[str], sections: Mapping[str, Any]) -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B', each `Scaled` in `sections` at its scale.

  Raises:
    InputError: an unknown scale, option or table; the sentence lists the right ones.
  """
  scale, chosen = parse(arg, tables)

  def at_scale(value: Any) -> Any:
    if isinstance(value, Scaled):
      return getattr(value, scale)
    if isinstance(value, Mapping):
      return {key: at_scale(one) for key, one in value.items()}
    return value

  config = base(scale, chosen)
  config.update(at_scale(sections))
  return config


def parse(arg: str, tables: Sequence[str]) -> tuple[str, tuple[str, ...]]:
  """Reads 'SCALE' or 'SCALE,tables=A+B' into (scale, tables).

  Raises:
    InputError: an unknown scale, option or table; the sentence lists the right ones.
  """
  scale, *options = (arg or 'cpu').split(',')
  if scale not in SCALES:
    raise InputError(f'scale {scale!r} is not one of {", ".join(SCALES)}.')
  chosen = tuple(tables)
  for option in options:
    key, _, value = option.partition('=')
    if key != 'tables':
      raise InputError(f'option {option!r} is not known; after the scale goes tables=A+B+….')
    chosen = tuple(value.split('+'))
  check_tables(chosen, tables)
  return scale, chosen


def check_tables(chosen: Sequence[str], tables: Sequence[str]) -> None:
  """Raises InputError that names the first unknown table and lists the right ones."""
  for table in chosen:
    if table not in tables:
      raise InputError(f'table {table!r} is not one of {", ".join(tables)}.')


def base(scale: str, tables: Sequence[str]) -> ConfigDict:
  """The sections that every experiment has."""
  return ConfigDict(
    {
      'scale': scale,
      'tables': tuple(tables),
      'seed': 0,
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},  # devices along each axis; −1 takes the rest
      'accumulate': 1,  # parts of a batch that are taken one after the other, to hold less at once
      'token_cache': '',  # folder that keeps training text as tokens for later epochs; '': none
      'profile': (),  # (first, last + 1) training steps to trace into WORKDIR/profile
      'dtype': 'float32' if scale in ('smoke', 'cpu') else 'bfloat16',  # of activations
    }
  )


def sized(config: ConfigDict, sizes: Mapping[str, Sequence]) -> ConfigDict:
  """The config with what changes with its scale: (section.)field -> a value for each scale."""
  for field, values in sizes.items():
    section, _, key = field.rpartition('.')
    (config[section] if section else config)[key] = values[SCALES.index(config.scale)]
  return config
