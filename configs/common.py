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
  'layers': 1,  # number of layers
  'dim': 16,  # width of the model
  'heads': 2,  # attention heads
  'head_dim': 0,  # width of a head; 0: dim / heads
  'mlp_dim': 0,  # width of the MLP; 0: four times dim
  'position': 'rotary',  # position encoding: rotary, learned, t5 or relative
  'max_distance': 128,  # largest distance in tokens that t5 and relative distinguish
  'norm': 'layer',  # layer or rms
  'gated': False,  # whether the MLP is gated
  'activation': 'gelu',  # gelu, relu or silu
  'init_std': 0.02,  # standard deviation of initial kernels; 0: by fan-in
  'remat': False,  # recompute each layer in the backward pass to save memory
}
# Its training (`experiments.fit`).
TRAINING = {
  'length': 32,  # tokens of a row
  'batch_size': 8,  # rows of a batch
  # Parts of the source that fill fixed rows of a batch (`lib.data.lanes`); 0: as many as divide the
  # batch, up to 64. A process reads only the lanes of its devices.
  'lanes': Scaled(1, 1, 0, 0),
  'steps': 6,  # training steps
  'optimizer': 'adamw',  # adamw, muon or adafactor
  'rates': (3e-3,),  # peak learning rates; of several, the best on validation text is used
  'rate_share': 0.2,  # share of the steps after which rates are compared
  'schedule': 'cosine',  # of the learning rate: cosine, rsqrt or constant
  'warmup': 0.05,  # linear warm-up, as a share of the steps
  'final': 0.1,  # last rate of the cosine, as a share of the peak
  'b2': 0.95,  # second-moment decay of AdamW
  'weight_decay': 0.0,  # on matrices alone, times the learning rate
  'clip_norm': 0.0,  # largest global norm of the gradient; 0: no clipping
  'seeds': 1,  # models that differ in their seed alone
  'side_by_side': 0,  # seeds that train at once, as replicas; 0: one after the other
  'initial': '',  # folder of a trained model to start from
  'evaluate_every': 100,  # steps
  'checkpoint_every': 1000,  # steps
}
# M1, the byte model of the neural codecs (`experiments.coders`). Its norm is RMS and its initial
# kernels are scaled by fan-in.
M1 = {
  **{key: value for key, value in MODEL.items() if key not in ('norm', 'init_std')},
  **TRAINING,
  'dim': 32,
  'mlp_dim': 64,
  'position': 't5',
  'gated': True,
  'activation': 'relu',
  'length': 32,  # tokens of a training row and the most that M1 sees, BOS included
  'streams': 8,  # texts that a codec reads in parallel
  'optimizer': 'muon',
  'rates': (2e-2,),
  'final': 0.01,
  'b2': 0.98,
  'clip_norm': 1.0,
  'z_loss': 1e-4,  # weight of the squared log of the softmax's denominator
  'validation_batches': 1,  # batches of validation text
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
      'scale': scale,  # smoke, cpu, gpu or paper
      'tables': tuple(tables),  # what to measure; usually given as SCALE,tables=A+B
      'seed': 0,  # of everything that is random
      'mesh': {  # devices along each axis; −1 takes the rest (docs/pod.md)
        'data': -1,  # of different rows of a batch
        'fsdp': 1,  # of different rows, and of different parts of the parameters
        'tensor': 1,  # of different heads, MLP columns and ids
      },
      'accumulate': 1,  # parts of a batch, processed one after the other to save memory
      'profile': (),  # (first, last + 1) training steps to trace into WORKDIR/profile
      # of activations: float32 or bfloat16
      'dtype': 'float32' if scale in ('smoke', 'cpu') else 'bfloat16',
    }
  )


def sized(config: ConfigDict, sizes: Mapping[str, Sequence]) -> ConfigDict:
  """The config with what changes with its scale: (section.)field -> a value for each scale."""
  for field, values in sizes.items():
    section, _, key = field.rpartition('.')
    (config[section] if section else config)[key] = values[SCALES.index(config.scale)]
  return config
