# SPDX-License-Identifier: Apache-2.0
"""Models of bytes that find their own tokens: H-Net and its rivals (2507.07955).

Claim: a hierarchy that learns where to cut its bytes into chunks, and models the chunks, has fewer
bits per byte than models of bytes, and than tokens, at equal FLOPs; two stages are better than one.

Expected: at this size a hierarchy is ahead of a byte Transformer, but behind a model of its own
recurrent layers alone over bytes. Cuts at spaces, made by rule, are ahead of learned ones, which
find the beginnings of words only slowly.
Cost: cpu is sized for at most 12 minutes a table on two quiet cores.

  python -m experiments.hierarchy --config=hierarchy:cpu --workdir=runs/hierarchy
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import MODEL, TRAINING
from configs.fields import Field, Scaled, Section

TABLES = ('causality', 'chunking', 'ablation', 'curve', 'noise_bytes')
ARMS = (
  'hnet', 'two_stages', 'spaces', 'stride', 'entropy', 'bpe_ends', 'byte_transformer',
  'byte_recurrent', 'bpe',
)  # fmt: skip
ABLATIONS = ('no_smoothing', 'no_straight_through', 'no_ratio_loss', 'convolution', 'attention')
# The bytes of an example, of a step, and `teraflops` say what these are.
BY_BYTES = ('length', 'batch_size', 'lanes', 'steps', 'evaluate_every')


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  decoder = MODEL | {
    'layers': Scaled(1, 2, 8, 24),
    'dim': Scaled(16, 64, 512, 1024),
    'heads': Scaled(2, 4, 8, 16),
    'norm': 'rms',
    'init_std': 0.0,
  }
  some = ('hnet', 'spaces', 'byte_transformer', 'bpe')
  few = ('hnet', 'two_stages', 'bpe')
  sections = {
    'data': {  # stdlib, a path, a glob, tfds:NAME (docs/data.md)
      'source': Field(Scaled('stdlib/prose', 'stdlib/prose', 'ngram:stdlib', 'tfds:c4/en'), size=1)
    },
    'outer': {  # the two networks over bytes, before and after the chunks
      'kind': Field('recurrence', choices=('recurrence', 'convolution', 'attention')),
      'layers': Scaled(1, 2, 4, 4),  # of each
      'dim': Scaled(8, 32, 256, 1024),
      'window': 16,  # bytes that attention sees
      'heads': Scaled(2, 4, 4, 16),  # of attention
    },
    'middle': {  # of two stages: the networks over the chunks of bytes, before and after their own
      'layers': Scaled(1, 1, 2, 4),
      'dim': Scaled(8, 48, 384, 1024),
    },
    'inner': decoder  # over the chunks
    | {
      'dim': Scaled(16, 64, 512, 1536),
      'initial': '',  # folder of a trained model of tokens whose decoder it starts from
    },
    'bytes': decoder  # the byte Transformer
    | {
      'layers': Scaled(1, 3, 6, 16),
      'dim': Scaled(8, 32, 320, 1024),
      'heads': Scaled(2, 4, 8, 16),
    },
    'recurrent': {'layers': Scaled(1, 4, 12, 28), 'dim': Scaled(8, 48, 320, 1024)},  # of bytes
    'subwords': decoder
    | {'vocab_size': Field(Scaled(280, 1024, 16_384, 65_536), least=257, most=2**24)},
    'entropy': decoder  # the model of bytes whose entropies say where chunks begin
    | {
      'layers': Scaled(1, 1, 2, 4),
      'dim': Scaled(8, 32, 256, 512),
      'heads': Scaled(2, 4, 4, 8),
      'steps': Scaled(4, 200, 10_000, 100_000),
    },
    'router': {
      'targets': Field(Scaled((5,), (3, 5, 8), (3, 5, 8), (3, 6, 9)), least=2, size=1),  # N
      'target': Field(Scaled(5, 5, 5, 6), least=2),  # N of the arms with one alone
      # N of both stages of two
      'targets_of_two': Field((3, 3), least=2, size=2),
      'stride': 4,  # bytes of a chunk that are counted, and on average of those by entropy
      'room': Field(0.5, above=0, most=1),  # chunks of a row, as a share of its bytes
      'ratio_weight': Field(0.03, least=0),  # of the ratio loss
    },
    'training': Section({f: value for f, value in TRAINING.items() if f not in BY_BYTES})
    | {
      'seeds': Scaled(2, 3, 3, 3),
      'side_by_side': Scaled(2, 3, 1, 1),
      'example_bytes': Scaled(32, 128, 1024, 8192),  # text is cut into such examples
      'batch_bytes': Scaled(128, 1024, 2**17, 2**21),  # of a step, about
      'teraflops': Scaled(1e-4, 0.1, 5e4, 1e9),  # of training, of each model
      'train_bytes': Scaled(4_000, 1_500_000, 2**28, 2**32),
      'validation_bytes': Scaled(1_000, 8_192, 2**20, 2**22),  # to choose a rate by
      'test_bytes': Scaled(1_000, 32_768, 2**22, 2**24),
      'rates': Scaled((3e-3,), (5e-3,), (1e-3, 3e-3), (6.25e-4,)),
      # factors of the rate by stage, the outermost first; the byte Transformer has the first rate
      'stage_rates': Field(Scaled((2.0, 1.0), (2.0, 1.0), (2.0, 1.0), (3.0, 1.7, 0.9)), size=1),
      'weight_decay': 0.1,
      'clip_norm': 0.0,
      # trainings of an arm that learns its chunks, until its FLOPs are within 2 % of `teraflops`
      'rounds': Scaled(1, 2, 2, 2),
      'points': Scaled(2, 6, 20, 20),  # of curves over the steps
    },
    'causality': {
      'arms': Field(
        Scaled(('two_stages', 'byte_transformer'), ARMS[:-1], ARMS[:-1], ARMS[:-1]),
        choices=ARMS[:-1],
        size=1,
      )
    },
    'chunking': {'arms': Field(Scaled(few, ARMS, ARMS, ARMS), choices=ARMS, size=1)},
    'ablation': {
      'without': Field(
        Scaled(('no_smoothing',), ABLATIONS, ABLATIONS, ABLATIONS), choices=ABLATIONS, size=1
      )
    },
    'noise_bytes': {
      'arms': Field(Scaled(('hnet', 'bpe'), some, some, some), choices=ARMS, size=1),
      'share': Field(0.1, above=0, most=1),  # of the bytes that noise drops or repeats
    },
  }
  return common.build(arg, TABLES, sections)
