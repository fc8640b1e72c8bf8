# SPDX-License-Identifier: Apache-2.0
"""What every config shares: the argument after the colon, the mesh, training."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from configs import fields
from configs.fields import Field, Scaled, Section
from lib.errors import InputError

SCALES = ('smoke', 'cpu', 'gpu', 'paper')


# A decoder; the sections of a config say what differs (`experiments.fit.make_decoder`).
MODEL = Section() | {
  'layers': Field(1, most=1000),
  'dim': 16,
  'heads': 2,
  'head_dim': Field(0, least=0),  # 0: dim / heads
  'mlp_dim': Field(0, least=0),  # 0: four times dim
  'position': Field('rotary', choices=('rotary', 'learned', 't5', 'relative')),
  'max_distance': 128,  # that t5 and relative tell apart
  'norm': Field('layer', choices=('layer', 'rms')),
  'gated': False,
  'activation': Field('gelu', choices=('gelu', 'relu', 'silu')),
  'init_std': Field(0.02, least=0),  # of kernels; 0: by fan-in
  'remat': False,  # recompute each layer in the backward pass, to hold less
}
# Its training (`experiments.fit`).
TRAINING = Section() | {
  'length': 32,  # tokens of a row
  'batch_size': 8,
  # Lanes of documents that the rows of a batch come from (`lib.data.lanes`); 0: as many as divide
  # the batch, up to 64. A process reads only those of its devices' rows.
  'lanes': Field(Scaled(1, 1, 0, 0), least=0),
  'steps': 6,
  'optimizer': Field('adamw', choices=('adamw', 'muon', 'adafactor')),
  # learning rates at their peak; of several the best by validation text
  'rates': Field((3e-3,), size=1),
  'rate_share': Field(0.2, most=1),  # of the steps, after which rates are compared
  'schedule': Field('cosine', choices=('cosine', 'rsqrt', 'constant')),
  'warmup': Field(0.05, least=0, most=1),  # share of the steps
  'final': Field(0.1, least=0, most=1),  # last rate of the cosine, as a share of the peak
  'b2': Field(0.95, least=0, below=1),
  'weight_decay': Field(0.0, least=0),
  'clip_norm': Field(0.0, least=0),  # 0: none
  'seeds': 1,
  # seeds that train at once, as replicas; 0: one after the other
  'side_by_side': Field(0, least=0),
  'initial': '',  # folder of a trained model to start from
  'evaluate_every': 100,
  'checkpoint_every': 1000,
}
TRAINED = MODEL | TRAINING  # a section of a model and its training
# M1, the byte model of the tokenizers driven by one (`experiments.coders`). Its norm is RMS and its
# kernels begin by fan-in: its file has no other.
M1 = Section({key: value for key, value in TRAINED.items() if key not in ('norm', 'init_std')})
M1 = M1 | {
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
  'z_loss': Field(1e-4, least=0),  # weight of the squared log of the softmax's denominator
  'validation_batches': 1,
}


def build(arg: str, tables: Sequence[str], sections: Mapping[str, Any]) -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B', each `Scaled` in `sections` at its scale.

  Raises:
    InputError: an unknown scale, option or table; the sentence lists the right ones.
  """
  scale, chosen = parse(arg, tables)
  return fields.build(base(chosen, tables) | sections, scale)


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


def base(chosen: Sequence[str], tables: Sequence[str]) -> Section:
  """The sections that every experiment has."""
  return Section() | {
    'scale': Field(Scaled(*SCALES), choices=SCALES),
    'tables': Field(tuple(chosen), choices=tuple(tables), size=1),
    'seed': Field(0, least=0, most=2**31 - 1),
    'mesh': {
      'data': Field(-1, least=-1),
      'fsdp': Field(1, least=-1),
      'tensor': Field(1, least=-1),
    },  # devices along each axis; −1 takes the rest
    'accumulate': 1,  # parts of a batch that are taken one after the other, to hold less at once
    # (first, last + 1) training steps to trace into WORKDIR/profile
    'profile': Field((), least=0, like=(0, 1)),
    'dtype': Field(  # of activations
      Scaled('float32', 'float32', 'bfloat16', 'bfloat16'),
      choices=('float32', 'bfloat16', 'float16'),
    ),
  }
