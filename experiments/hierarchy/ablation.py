# SPDX-License-Identifier: Apache-2.0
"""Table `ablation`: an H-Net without one of its parts, or with other outer networks."""

import numpy as np
from ml_collections import ConfigDict

from experiments.hierarchy import arms, chunking
from experiments.hierarchy.arms import Arm
from experiments.recipe import Run, Table, TrainSpecs, text_of
from lib.report.results import Rows


def _every(config: ConfigDict) -> list[Arm]:
  target = config.router.target
  return [Arm('hnet', target, without) for without in ('', *config.ablation.without)]


def measure(config: ConfigDict, run: Run) -> Rows:
  """The rows of `chunking` for each ablation, less the whole model."""
  rows = Rows('ablation')
  bits: dict[Arm, np.ndarray] = {}
  chosen = arms.Chosen()
  for arm in _every(config):
    bits[arm] = chunking.add_arm(config, rows, arms.train(config, run, arm, chosen))
  chunking.add_differences(rows, bits, ('hnet',))
  return rows


def train_specs(config: ConfigDict) -> TrainSpecs:
  """All of them are models of bytes."""
  return arms.train_specs(config, _every(config))


TABLE = Table(
  'ablation',
  measure,
  caption='An H-Net at equal FLOPs of training: whole, without the smoothing of chunks, without '
  'the gradient to the probability of the chosen side, without the ratio loss, and with outer '
  'networks of convolutions or of attention to nearby bytes in place of recurrences. All have the '
  'learning rate that is best for the whole model. A row with '
  '`less=hnet` is less the whole model, paired by seed and document.',
  shown=(
    chunking.BITS,
    chunking.DIFFERENCE,
    'chunks_per_byte',
    'overflow_share',
    'boundary_f1_above_chance',
    'teraflops_off',
  ),
  check=arms.check,
  train_specs=train_specs,
  sources=text_of,
)
