# SPDX-License-Identifier: Apache-2.0
"""Training LLMs over Neurally Compressed Text (Lester, Lee, Alemi, Pennington, Roberts,
Sohl-Dickstein, Constant; arXiv 2404.03626).

Claim: text compressed by arithmetic coding under a small language model M1 cannot be learned from
as it is, but can when the coder begins anew at windows of equal information: then it is shorter
than bytes and than subwords, and a second model M2 learns it.

Expected: bytes per token in the order StaticAC < b = 16 < 32 < 64 < 128 < AC for one M1.

  python -m experiments.equal_info --config=configs/equal_info.py:cpu --workdir=runs/equal_info
"""

from ml_collections import ConfigDict

from configs import common

TABLES = ('ratio',)  # in the order of the report

# What each tokenizer is called; see experiments/equal_info/codecs.py.
WINDOWS = ('greedy16', 'greedy24', 'greedy32', 'greedy64', 'greedy128')
LOSSLESS = ('delay16', 'exact16', 'numbered16')
DICTIONARIES = ('top16', 'parsed16', 'pruned16', 'bpe16')
BASELINES = ('bytes', 'sentencepiece', 'static_ac', 'gzip', 'ac')

# Fields that change with the scale: smoke, cpu, gpu, paper.
SIZES = {
  'data.source': ('stdlib/prose', 'stdlib', 'stdlib', 'tfds:c4/en'),
  'm1.layers': (1, 2, 3, 3),
  'm1.dim': (32, 128, 256, 256),
  'm1.heads': (2, 4, 4, 4),
  'm1.mlp_dim': (64, 512, 1024, 1024),
  'm1.context': (32, 128, 1024, 1024),
  'm1.streams': (8, 16, 256, 256),
  'm1.position': ('t5', 't5', 'relative', 'relative'),
  'm1.steps': (20, 1200, 20_000, 2_500_000),
  'm1.batch_size': (8, 32, 128, 128),
  'm1.optimizer': ('muon', 'muon', 'muon', 'adafactor'),
  'm1.schedule': ('cosine', 'cosine', 'cosine', 'rsqrt'),
  'm1.peak': (2e-2, 2e-2, 5e-3, 1e-2),
  'm1.warmup': (4, 50, 500, 10_000),
  'm1.evaluate_every': (10, 200, 1000, 10_000),
  'm1.checkpoint_every': (10, 200, 1000, 10_000),
  'm1.validation_batches': (2, 16, 20, 20),
  'tokenizers.train_bytes': (100_000, 2**23, 2**27, 2**30),
  'tokenizers.sentencepiece': (512, 8000, 32_000, 32_000),
  'ratio.methods': (
    (*BASELINES, 'greedy12', 'exact12', 'greedy24', 'greedy128', 'parsed12', 'pruned12', 'bpe12'),
    *((*BASELINES, 'greedy12', *WINDOWS, *LOSSLESS, *DICTIONARIES),) * 3,
  ),
  'ratio.examples': (4, 16, 256, 1024),
  'ratio.length': (64, 4096, 10_240, 10_240),
}


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  scale, tables = common.parse(arg, TABLES)
  config = common.base(scale, tables)
  config.data = {'source': 'stdlib'}  # documents: stdlib, own files or tfds:NAME
  config.m1 = {
    'layers': 1,
    'dim': 32,
    'heads': 2,
    'mlp_dim': 64,
    'context': 32,  # bytes of a training row and of what M1 sees at most, its begin counted
    'streams': 8,  # texts that a codec reads side by side
    'position': 't5',  # or relative, rotary, learned
    'max_distance': 128,
    'gated': True,
    'activation': 'relu',
    'steps': 1,
    'batch_size': 8,
    'optimizer': 'muon',
    'schedule': 'cosine',
    'peak': 2e-2,
    'warmup': 1,  # steps
    'final': 0.01,  # of the peak
    'b2': 0.98,
    'clip_norm': 1.0,
    'evaluate_every': 1,
    'checkpoint_every': 1,
    'validation_batches': 1,
  }
  config.tokenizers = {
    'train_bytes': 1,  # of the train split, which learned tokenizers count on
    'sentencepiece': 512,  # ids
  }
  config.ratio = {
    'methods': (),  # tokenizers
    'token_bits': (8, 16),  # widths of a token, where a tokenizer has the choice
    'examples': 1,  # held-out documents
    'length': 16,  # bytes of each
  }
  for field, values in SIZES.items():
    section, _, key = field.rpartition('.')
    (config[section] if section else config)[key] = values[common.SCALES.index(scale)]
  return config
