# SPDX-License-Identifier: Apache-2.0
"""Byte models that learn their own chunks: H-Net and its rivals (2507.07955).

Claim: a hierarchy that learns where to cut its bytes into chunks, and models the chunks, has fewer
bits per byte than models of bytes, and than tokens, at equal FLOPs; two stages are better than one.

Expected: at this size a hierarchy is ahead of a byte Transformer, but behind BPE tokens, and
further behind a model of its own recurrent layers alone over bytes. Cuts at spaces, by rule, are
better than learned cuts, which find the beginnings of words at first and lose some again. Cuts at
the ends of BPE tokens are worse than learned cuts: the marks of these ends have to be predicted
too. All models are at the beginning of learning: counting with three bytes of context is ahead.
Cost: cpu is sized for at most 15 minutes a table on two quiet cores. paper has the paper's models
and FLOPs, to be compiled (`experiments.tools.aot`). They need one to two terabytes of text, which
is read from the source as training goes (`training.stream`).

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
    'data': {
      # source of the text (docs/data.md)
      'source': Field(Scaled('stdlib/prose', 'stdlib/prose', 'ngram:stdlib', 'tfds:c4/en'), size=1)
    },
    'outer': {  # the two networks over bytes, before and after the chunks
      # layers of these networks
      'kind': Field('recurrence', choices=('recurrence', 'convolution', 'attention')),
      'layers': Scaled(1, 2, 4, 4),  # number of layers of each network
      'dim': Scaled(8, 32, 256, 1024),  # width of both networks
      'window': 16,  # bytes that attention sees, if kind is attention
      'heads': Scaled(2, 4, 4, 16),  # attention heads, if kind is attention
      'remat': False,  # whether layers are recomputed in the backward pass, to save memory
    },
    'middle': {  # with two stages: the two networks over chunks of bytes
      'layers': Scaled(1, 1, 2, 4),  # number of layers of each network
      'dim': Scaled(8, 48, 384, 1024),  # width of both networks
      'remat': False,  # whether layers are recomputed in the backward pass, to save memory
    },
    'inner': decoder  # the network over chunks
    | {
      'dim': Scaled(16, 64, 512, 1536),
      'initial': '',  # folder of a trained token model, whose decoder this network starts from
    },
    'bytes': decoder  # the byte Transformer
    | {
      'layers': Scaled(1, 3, 6, 16),
      'dim': Scaled(8, 32, 320, 1024),
      'heads': Scaled(2, 4, 8, 16),
    },
    'recurrent': {  # the byte model of recurrent layers alone
      'layers': Scaled(1, 4, 12, 28),  # number of layers
      'dim': Scaled(8, 48, 320, 1024),  # width of the model
      'remat': False,  # whether layers are recomputed in the backward pass, to save memory
    },
    'subwords': decoder
    | {
      # ids of the model over BPE tokens
      'vocab_size': Field(Scaled(280, 1024, 16_384, 65_536), least=257, most=2**24)
    },
    'entropy': {  # the byte model of recurrent layers that begins a chunk where its entropy is high
      'layers': Scaled(1, 1, 2, 4),  # number of layers
      'dim': Scaled(8, 32, 256, 512),  # width of the model
      'remat': False,  # whether layers are recomputed in the backward pass, to save memory
      # share of the arm's training FLOPs that this model is trained with, before the others
      'share': Field(0.1, above=0, below=1),
    },
    'router': {
      # bytes per chunk (N of the paper) that learned routers are trained to
      'targets': Field(Scaled((5,), (3, 5, 8), (3, 5, 8), (3, 6, 9)), least=2, size=1),
      'target': Field(Scaled(5, 5, 5, 6), least=2),  # the same for arms with only one N
      # the same for the two stages of `two_stages`
      'targets_of_two': Field((3, 3), least=2, size=2),
      'stride': 4,  # bytes per chunk of `stride`, and on average of `entropy`
      'room': Field(0.5, above=0, most=1),  # most chunks of a row, as a share of its bytes
      'ratio_weight': Field(0.03, least=0),  # weight of the ratio loss
    },
    'training': Section({f: value for f, value in TRAINING.items() if f not in BY_BYTES})
    | {
      'seeds': Scaled(2, 3, 3, 3),
      'side_by_side': Scaled(2, 3, 1, 1),
      # bytes of an example; text is cut into examples
      'example_bytes': Scaled(32, 128, 1024, 8192),
      'batch_bytes': Scaled(128, 1024, 2**17, 2**21),  # bytes of a training step, approximately
      'teraflops': Scaled(1e-4, 0.1, 2e4, 1e9),  # training FLOPs of each model, in units of 10^12
      # bytes of training text in memory; of a stream it is the sample that learns the BPE tokens,
      # and by which FLOPs are counted
      'train_bytes': Scaled(4_000, 1_500_000, 2**28, 2**28),
      # whether training reads all documents from the source as it goes, not train_bytes of them
      'stream': Scaled(False, False, False, True),
      # bytes of held-out text by which a learning rate is chosen
      'validation_bytes': Scaled(1_000, 8_192, 2**20, 2**22),
      'test_bytes': Scaled(1_000, 32_768, 2**22, 2**24),  # bytes of held-out text that are scored
      'rates': Scaled((3e-3,), (2.5e-3, 5e-3, 1e-2, 2e-2), (1e-3, 3e-3), (6.25e-4,)),
      # share of the steps after which rates are compared; models of bytes learn little before
      'rate_share': Scaled(0.5, 0.5, 0.2, 0.2),
      # factors of a hierarchy's learning rate, by stage from the outermost
      'stage_rates': Field(Scaled((2.0, 1.0), (2.0, 1.0), (2.0, 1.0), (3.0, 1.7, 0.9)), size=1),
      'weight_decay': 0.1,
      'clip_norm': 0.0,
      # most trainings of an arm with learned chunks, until its FLOPs are within 2 % of `teraflops`
      'rounds': Scaled(1, 3, 2, 2),
      'points': Scaled(2, 6, 20, 20),  # points of a curve over training steps
    },
    'causality': {
      # arms that are tested
      'arms': Field(
        Scaled(('two_stages',), ARMS[:-1], ARMS[:-1], ARMS[:-1]),
        choices=ARMS[:-1],
        size=1,
      )
    },
    'chunking': {
      # arms that are trained
      'arms': Field(Scaled(few, ARMS, ARMS, ARMS), choices=ARMS, size=1)
    },
    'ablation': {
      # parts that are removed or replaced, one per model; empty: only the whole model
      'without': Field(Scaled(('convolution',), ABLATIONS, ABLATIONS, ABLATIONS), choices=ABLATIONS)
    },
    'noise_bytes': {
      # arms that are trained
      'arms': Field(Scaled(('hnet', 'bpe'), some, some, some), choices=ARMS, size=1),
      'share': Field(0.1, above=0, most=1),  # share of the bytes that are dropped or repeated
    },
  }
  return common.build(arg, TABLES, sections)
