# SPDX-License-Identifier: Apache-2.0
"""What every config shares: the argument after the colon, the mesh, training."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from configs import fields
from configs.fields import Field, Scaled, Section
from lib.errors import InputError

SCALES = ('smoke', 'cpu', 'gpu', 'paper')


# A decoder (`experiments.fit.make_decoder`). Sections of a config override these defaults.
MODEL = Section() | {
  'layers': Field(1, most=1000),  # number of layers
  'dim': 16,  # width of the model
  'heads': 2,  # attention heads
  'head_dim': Field(0, least=0),  # width of a head; 0: dim / heads
  'mlp_dim': Field(0, least=0),  # width of the MLP; 0: four times dim
  # position encoding
  'position': Field('rotary', choices=('rotary', 'learned', 't5', 'relative')),
  'max_distance': 128,  # largest distance in tokens that the positions t5 and relative distinguish
  'norm': Field('layer', choices=('layer', 'rms')),  # normalization, LayerNorm or RMSNorm
  'gated': False,  # whether the MLP is gated
  'activation': Field('gelu', choices=('gelu', 'relu', 'silu')),  # activation function of the MLP
  'init_std': Field(0.02, least=0),  # standard deviation of initial kernels; 0: by fan-in
  'remat': False,  # whether layers are recomputed in the backward pass, to save memory
}
# Its training (`experiments.fit`).
TRAINING = Section() | {
  'length': Field(32, most=2**24),  # tokens of a row
  'batch_size': 8,  # rows of a batch
  # lanes of the source, each of which fills fixed rows of a batch (docs/pod.md); 0: as many as
  # divide the batch, up to 64
  'lanes': Field(Scaled(1, 1, 0, 0), least=0),
  'steps': 6,  # training steps
  'optimizer': Field('adamw', choices=('adamw', 'muon', 'adafactor')),  # optimizer
  # peak learning rates; of several the best on validation text is used, or one beyond them while
  # an end is best
  'rates': Field((3e-3,), size=1),
  'rate_share': Field(0.2, most=1),  # share of the steps after which rates are compared
  # schedule of the learning rate
  'schedule': Field('cosine', choices=('cosine', 'rsqrt', 'constant')),
  'warmup': Field(0.05, least=0, most=1),  # length of the linear warm-up, as a share of the steps
  'final': Field(0.1, least=0, most=1),  # last learning rate of the cosine, as a share of the peak
  'b2': Field(0.95, least=0, below=1),  # second-moment decay of AdamW
  'weight_decay': Field(0.0, least=0),  # weight decay of matrices, multiplied by the learning rate
  'clip_norm': Field(0.0, least=0),  # largest global norm of the gradient; 0: no clipping
  'seeds': Field(1, most=1000),  # models that differ in their seed alone
  # seeds that train at once, as replicas; 0: one after the other
  'side_by_side': Field(0, least=0),
  # how these seeds train at once: on all devices together (vmap), on one device each (pmap), or
  # pmap if there are enough devices (auto)
  'replicas': Field(Scaled('vmap', 'vmap', 'auto', 'auto'), choices=('vmap', 'pmap', 'auto')),
  'initial': '',  # folder of a trained model to start from
  'evaluate_every': 100,  # steps between evaluations on validation text
  'checkpoint_every': 1000,  # steps between checkpoints
}
TRAINED = MODEL | TRAINING  # a section of a model and its training
SMALL = TRAINED | {  # a model of text, whose seeds train at once on a CPU
  'norm': 'rms',
  'seeds': Scaled(2, 3, 3, 3),
  'side_by_side': Scaled(2, 3, 1, 1),
  'optimizer': 'muon',
  'rates': Scaled((2e-2,), (2e-2,), (1e-2,), (5e-3,)),
  'warmup': 0.1,
}
# M1, the byte model of the neural codecs (`experiments.coders`). Its norm is RMS and its initial
# kernels are scaled by fan-in.
M1 = Section({key: value for key, value in TRAINED.items() if key not in ('norm', 'init_std')})
M1 = M1 | {
  'dim': 32,
  'mlp_dim': 64,
  'position': 't5',
  'gated': True,
  'activation': 'relu',
  'length': 32,  # tokens of a training row, and the largest context of M1, BOS included
  'streams': 8,  # texts that M1 reads in parallel
  'optimizer': 'muon',
  'rates': (2e-2,),
  'final': 0.01,
  'b2': 0.98,
  'clip_norm': 1.0,
  'z_loss': Field(1e-4, least=0),  # weight of the squared log of the softmax's denominator
  'validation_batches': 1,  # batches of validation text in each evaluation
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
    'scale': Field(Scaled(*SCALES), choices=SCALES),  # the scale; given after the colon of --config
    # tables to measure; usually given as SCALE,tables=A+B
    'tables': Field(tuple(chosen), choices=tuple(tables), size=1),
    'seed': Field(0, least=0, most=2**31 - 1),  # seed of all random numbers
    'mesh': {  # devices along each axis; −1 takes the rest (docs/pod.md)
      'data': Field(-1, least=-1),  # devices that have different rows of a batch
      'fsdp': Field(1, least=-1),  # devices that have different rows and parts of the parameters
      'tensor': Field(1, least=-1),  # devices that have different heads, MLP columns and ids
    },
    'accumulate': 1,  # parts of a batch, processed one after the other to save memory
    # training steps to trace into WORKDIR/profile: (first, last + 1)
    'profile': Field((), least=0, like=(0, 1)),
    'dtype': Field(  # dtype of activations
      Scaled('float32', 'float32', 'bfloat16', 'bfloat16'),
      choices=('float32', 'bfloat16'),
    ),
  }
