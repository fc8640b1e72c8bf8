# SPDX-License-Identifier: Apache-2.0
"""Training LLMs over Neurally Compressed Text (Lester, Lee, Alemi, Pennington, Roberts,
Sohl-Dickstein, Constant; arXiv 2404.03626).

Claim: a second language model M2 cannot learn from text that was compressed by arithmetic coding
under a small language model M1, unless the coder and M1 are reset at windows of equal information.
Such windows are shorter than bytes and than subwords.

Expected: bytes per token in the order StaticAC < b = 16 < 32 < 64 < 128 < AC for one M1. M2 over
AC stays near ln V. M2 over windows of 16 bits falls below a unigram over whole windows if it is
trained for long enough: in a pilot of 0.5M parameters after 800 steps (2.70 against 2.91 bits per
byte), not after 200 (3.17). A decoder predicts more bytes than its control from windows, and from
AC only at first. Cost: smoke under a minute.

  python -m experiments.equal_info --config=configs/equal_info.py:cpu --workdir=runs/equal_info
"""

from ml_collections import ConfigDict

from configs import common

TABLES = ('ratio', 'm2', 'windows', 'reset', 'decompress', 'uniformity', 'stability')  # in order

# What each tokenizer is called; see experiments/coders.py.
WINDOWS = ('greedy16', 'greedy24', 'greedy32', 'greedy64', 'greedy128')
LOSSLESS = ('delay16', 'exact16', 'numbered16')
DICTIONARIES = ('top16', 'parsed16', 'pruned16', 'bpe16')
BASELINES = ('bytes', 'sentencepiece', 'static_ac', 'gzip', 'ac')

# The paper's models, by parameters without embeddings: name, layers, width, heads, MLP.
PAPER = (
  ('25m', 6, 512, 8, 2048),
  ('113m', 12, 768, 12, 3072),
  ('403m', 24, 1024, 16, 4096),
  ('2b', 24, 2048, 32, 8192),
)
# What M2 reads: tokenizer and bits of a token (8 where it has no choice).
M2_CPU = (
  ('bytes', 8), ('sentencepiece', 8), ('static_ac', 8), ('ac', 8), ('greedy16', 8),
  ('numbered16', 8), ('greedy32', 8), ('greedy64', 8), ('gzip', 8), ('numbered12', 12),
  ('pruned12', 8), ('bpe12', 8),
)  # fmt: skip
M2_PAPER = (
  ('bytes', 8), ('sentencepiece', 8),
  *((method, bits) for method in ('ac', 'static_ac', 'greedy16', 'delay16', 'gzip', 'greedy32',
                                  'greedy64', 'greedy128') for bits in (8, 16)),
  ('exact16', 16), ('numbered16', 16), ('top16', 16), ('parsed16', 16), ('pruned16', 8),
  ('bpe16', 8),
)  # fmt: skip
# A model and its training; the sections m1, m2 and decompress say what differs.
TRAINING = {
  'position': 't5',  # or relative, rotary, learned
  'max_distance': 128,
  'activation': 'relu',
  'remat': False,  # recompute each layer in the backward pass, to hold less
  'steps': 1,
  'batch_size': 8,
  'optimizer': 'muon',
  'schedule': 'cosine',
  'warmup': 1,  # steps
  'final': 0.01,  # of the peak
  'b2': 0.98,
  'clip_norm': 1.0,
  'z_loss': 1e-4,  # weight of the squared log of the softmax's denominator; the paper's
  'evaluate_every': 1,
  'checkpoint_every': 1,
}
READER = TRAINING | {  # a model that reads tokens
  'seeds': 1,
  'rates': (2e-2,),  # peaks of the learning rate; of several the best by validation text, by arm
  'rate_share': 0.2,  # of the steps, after which rates are compared
}

# Fields that change with the scale: smoke, cpu, gpu, paper.
SIZES = {
  'data.source': ('stdlib/prose', 'stdlib', 'ngram:stdlib,length=10240', 'tfds:c4/en'),
  'm1.layers': (1, 2, 3, 3),
  'm1.dim': (32, 128, 256, 256),
  'm1.heads': (2, 4, 4, 4),
  'm1.mlp_dim': (64, 512, 1024, 1024),
  'm1.length': (32, 128, 1024, 1024),
  'm1.streams': (8, 16, 256, 256),
  'm1.position': ('t5', 't5', 'relative', 'relative'),
  'm1.steps': (20, 1200, 20_000, 2_500_000),
  'm1.batch_size': (8, 16, 128, 128),
  'm1.optimizer': ('muon', 'muon', 'muon', 'adafactor'),
  'm1.schedule': ('cosine', 'cosine', 'cosine', 'rsqrt'),
  'm1.rates': ((2e-2,), (2e-2,), (5e-3,), (1e-2,)),
  'm1.warmup': (0.2, 1 / 24, 0.025, 0.004),
  'm1.evaluate_every': (10, 200, 1000, 10_000),
  'm1.checkpoint_every': (10, 200, 1000, 10_000),
  'm1.validation_batches': (2, 16, 20, 20),
  'tokenizers.train_bytes': (100_000, 2**22, 2**27, 2**30),
  'tokenizers.sentencepiece': (512, 4096, 32_000, 32_000),
  'ratio.methods': (
    (
      *BASELINES,
      'greedy12',
      'delay12',
      'exact12',
      'numbered12',
      'greedy24',
      'greedy128',
      'parsed12',
      'pruned12',
      'bpe12',
    ),
    *((*BASELINES, 'greedy12', *WINDOWS, *LOSSLESS, *DICTIONARIES),) * 3,
  ),
  'ratio.examples': (4, 32, 256, 1024),
  'ratio.length': (64, 3072, 10_240, 10_240),
  'reset.examples': (4, 32, 256, 256),
  'reset.length': (64, 1024, 10_240, 10_240),
  'uniformity.methods': (
    ('gzip', 'greedy24', 'greedy128', 'ac'),
    *(('gzip', 'static_ac', 'greedy16', 'greedy32', 'greedy128', 'ac'),) * 3,
  ),
  'uniformity.bits': ((1, 4), *((1, 2, 4, 8, 16),) * 3),
  'uniformity.length': (64, 4096, 10_240, 10_240),
  'uniformity.bytes': (1024, 600_000, 2**24, 2**28),
  'uniformity.most': (2, 6, 6, 6),
  'stability.methods': (
    ('sentencepiece', 'greedy12', 'ac'),
    *(('bytes', 'sentencepiece', 'greedy16', 'numbered16', 'parsed16', 'ac'),) * 3,
  ),
  'stability.token_bits': (8, 16, 16, 16),
  'stability.prefixes': (4, 16, 500, 500),
  'stability.texts': (2, 24, 24, 24),
  'stability.text_length': (32, 100, 100, 100),
  'stability.examples': (4, 20, 20, 20),
  'stability.length': (64, 1024, 1024, 1024),
  'm2.methods': (
    (('bytes', 8), ('sentencepiece', 8), ('ac', 8), ('greedy24', 8), ('bpe12', 8)),
    M2_CPU,
    M2_PAPER,
    M2_PAPER,
  ),
  'm2.equal_text': (
    (('bytes', 8), ('greedy24', 8), ('bpe12', 8)),
    (('bytes', 8), ('numbered16', 8), ('numbered12', 12), ('pruned12', 8), ('bpe12', 8)),
    *((('bytes', 8), ('numbered16', 16), ('pruned16', 8), ('bpe16', 8)),) * 2,
  ),
  'm2.models': ((('tiny', 1, 32, 2, 64),), (('0.3m', 2, 96, 4, 384),), PAPER[:1], PAPER),
  'm2.position': ('t5', 't5', 'relative', 'relative'),
  'm2.seeds': (1, 3, 3, 3),
  'm2.steps': (6, 480, 3000, 200_000),
  'm2.batch_size': (8, 6, 256, 256),
  'm2.length': (64, 191, 512, 512),
  'm2.pack': (True, True, False, False),
  'm2.optimizer': ('adamw', 'muon', 'muon', 'adafactor'),
  'm2.schedule': ('cosine', 'cosine', 'cosine', 'rsqrt'),
  'm2.rates': ((3e-3,), (7e-3, 2e-2, 6e-2), (1.7e-3, 5e-3, 1.5e-2), (1e-2,)),
  'm2.warmup': (1, 10, 100, 10_000),
  'm2.evaluate_every': (3, 120, 500, 5000),
  'm2.checkpoint_every': (3, 240, 500, 5000),
  'm2.example_bytes': (64, 191, 10_240, 10_240),
  'm2.train_bytes': (20_000, 2**23, 2**31, 2**37),
  'm2.stepped_bytes': (4_000, 800_000, 2**31, 2**37),
  'm2.validation_bytes': (1_000, 10_000, 2**21, 2**24),
  'm2.test_bytes': (1_000, 40_000, 2**23, 2**26),
  'windows.methods': (
    (('greedy24', 8), ('greedy32', 8)),
    (('greedy16', 8), ('greedy32', 8), ('greedy64', 8)),
    *(tuple((f'greedy{b}', bits) for b in (16, 24, 32, 64, 128) for bits in (8, 16)),) * 2,
  ),
  'generate.method': (('bytes', 8), ('numbered16', 8), ('exact16', 16), ('exact16', 16)),
  'decompress.methods': (('ac', 'greedy24'), *(('ac', 'greedy16'),) * 3),
  'decompress.mismatched': ((), *(('ac',),) * 3),
  'decompress.seeds': (1, 3, 3, 3),
  'decompress.layers': (1, 3, 12, 12),
  'decompress.dim': (32, 96, 768, 768),
  'decompress.heads': (2, 4, 12, 12),
  'decompress.mlp_dim': (64, 256, 3072, 3072),
  'decompress.position': ('learned', 'learned', 'relative', 'relative'),
  'decompress.text_bytes': (16, 20, 1024, 1024),
  'decompress.room': (24, 18, 600, 600),
  'decompress.steps': (6, 400, 20_000, 200_000),
  'decompress.batch_size': (8, 32, 64, 256),
  'decompress.optimizer': ('adamw', 'muon', 'muon', 'adafactor'),
  'decompress.schedule': ('cosine', 'cosine', 'cosine', 'rsqrt'),
  'decompress.rates': ((3e-3,), (7e-3, 2e-2, 6e-2), (1.7e-3, 5e-3, 1.5e-2), (1e-2,)),
  'decompress.warmup': (1, 50, 500, 10_000),
  'decompress.evaluate_every': (3, 200, 1000, 5000),
  'decompress.checkpoint_every': (3, 200, 1000, 5000),
  'decompress.train_texts': (200, 20_000, 2**19, 2**24),
  'decompress.test_texts': (60, 6000, 10_000, 10_000),
}


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  scale, tables = common.parse(arg, TABLES)
  config = common.base(scale, tables)
  config.data = {'source': 'stdlib'}  # documents: stdlib, own files, ngram:SOURCE or tfds:NAME
  config.m1 = common.M1
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
  config.reset = {'examples': 1, 'length': 16}  # as in ratio
  config.uniformity = {
    'methods': (),
    'bits': (1,),  # n of the strings of n bits that are counted
    'length': 16,  # bytes of an excerpt, a stream of its own
    'bytes': 1,  # of held-out text
    'most': 2,  # excerpts of one document at most
    'draws': 20,  # of random bytes
  }
  config.stability = {
    'methods': (),
    'token_bits': 16,
    'prefixes': 1,  # words put before each text
    'texts': 1,
    'text_length': 1,
    'examples': 1,  # documents in which tokens are looked up, and the bytes of each
    'length': 1,
  }
  config.m2 = READER | {
    'methods': (),  # (tokenizer, bits of a token) pairs
    'equal_text': (),  # those of them that are also trained on equal bytes of text
    'models': (),  # (name, layers, width, heads, MLP) of each
    'length': 64,  # tokens of a row
    'pack': True,  # rows filled with examples end to end; else one example a row, cropped
    'example_bytes': 64,  # text is cut into such, each a stream of tokens of its own
    'train_bytes': 1,  # of text, encoded whole before training: as much as a host's memory holds
    'stepped_bytes': 1,  # the same for tokenizers that need M1 for every text
    'validation_bytes': 1,
    'test_bytes': 1,
  }
  config.windows = {'methods': ()}  # pairs as in m2, read by the first of its models
  config.decompress = READER | {
    'methods': (),  # tokenizers
    'mismatched': (),  # those of them that are also trained on tokens of another text
    'token_bits': 8,
    'layers': 1,
    'dim': 32,
    'heads': 2,
    'mlp_dim': 64,
    'text_bytes': 16,
    'room': 16,  # tokens that a text may have at most
    'train_texts': 1,
    'test_texts': 1,
  }
  config.prompt = ''  # a text for M2 to go on with
  config.generate = {
    'method': (),  # a pair of m2.methods, lossless
    'bytes': 200,  # at least so many
    'temperature': 0.8,
  }
  return common.sized(config, SIZES)
