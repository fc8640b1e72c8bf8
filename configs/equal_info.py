# SPDX-License-Identifier: Apache-2.0
"""Training LLMs over Neurally Compressed Text (Lester, Lee, Alemi, Pennington, Roberts,
Sohl-Dickstein, Constant; arXiv 2404.03626).

Claim: a second language model M2 cannot learn from text that was compressed by arithmetic coding
under a small language model M1, unless the coder and M1 are reset at windows of equal information.
Such windows are shorter than bytes and than subwords.

Expected: bytes per token in the order StaticAC < b = 16 < 32 < 64 < 128 < AC for one M1. M2 over
AC stays near ln V. M2 over windows of 16 bits falls below a unigram over whole windows if it is
trained for long enough, and stays behind bytes that have a learning rate of their own. A decoder
that reads windows predicts more bytes than its control; a decoder that reads AC does so only at the
beginning of a text. Cost: smoke under a minute.

  python -m experiments.equal_info --config=equal_info:cpu --workdir=runs/equal_info
"""

from ml_collections import ConfigDict

from configs import common
from configs.fields import Field, Scaled

TABLES = ('ratio', 'm2', 'windows', 'reset', 'decompress', 'uniformity', 'stability')  # in order

# What each tokenizer is called; see experiments/coders.py.
WINDOWS = ('greedy16', 'greedy24', 'greedy32', 'greedy64', 'greedy128')
LOSSLESS = ('delay16', 'exact16', 'numbered16')
DICTIONARIES = ('top16', 'parsed16', 'pruned16', 'bpe_unsplit16')
BASELINES = ('bytes', 'sentencepiece', 'static_ac', 'gzip', 'ac')
EVERY = (*BASELINES, 'greedy12', *WINDOWS, *LOSSLESS, *DICTIONARIES)
EVERY_SMOKE = (
  *BASELINES,
  'greedy12',
  'delay12',
  'exact12',
  'numbered12',
  'greedy24',
  'greedy128',
  'parsed12',
  'pruned12',
  'bpe_unsplit12',
)

# The paper's models, by parameters without embeddings: name, layers, width, heads, MLP.
PAPER = (
  ('25m', 6, 512, 8, 2048),
  ('113m', 12, 768, 12, 3072),
  ('403m', 24, 1024, 16, 4096),
  ('2b', 24, 2048, 32, 8192),
)
# What M2 reads: tokenizer and bits of a token (8 where it has no choice).
M2_SMOKE = (('bytes', 8), ('sentencepiece', 8), ('ac', 8), ('greedy24', 8), ('bpe_unsplit12', 8))
M2_CPU = (
  ('bytes', 8), ('sentencepiece', 8), ('static_ac', 8), ('ac', 8), ('greedy16', 8),
  ('numbered16', 8), ('greedy32', 8), ('greedy64', 8), ('gzip', 8), ('numbered12', 12),
  ('pruned12', 8), ('bpe_unsplit12', 8),
)  # fmt: skip
M2_PAPER = (
  ('bytes', 8), ('sentencepiece', 8),
  *((method, bits) for method in ('ac', 'static_ac', 'greedy16', 'delay16', 'gzip', 'greedy32',
                                  'greedy64', 'greedy128') for bits in (8, 16)),
  ('exact16', 16), ('numbered16', 16), ('top16', 16), ('parsed16', 16), ('pruned16', 8),
  ('bpe_unsplit16', 8),
)  # fmt: skip
EQUAL_TEXT_SMOKE = (('bytes', 8), ('greedy24', 8), ('bpe_unsplit12', 8))
EQUAL_TEXT_CPU = (
  ('bytes', 8),
  ('numbered16', 8),
  ('numbered12', 12),
  ('pruned12', 8),
  ('bpe_unsplit12', 8),
)
EQUAL_TEXT = (('bytes', 8), ('numbered16', 16), ('pruned16', 8), ('bpe_unsplit16', 8))
IN_WINDOWS_SMOKE = (('greedy24', 8), ('greedy32', 8))
IN_WINDOWS_CPU = (('greedy16', 8), ('greedy32', 8), ('greedy64', 8))
IN_WINDOWS = tuple((f'greedy{b}', bits) for b in (16, 24, 32, 64, 128) for bits in (8, 16))

# A model that reads tokens, and its training.
READER = common.TRAINED | {
  'norm': 'rms',
  'gated': True,
  'activation': 'relu',
  'init_std': 0.0,
  'seeds': Scaled(1, 3, 3, 3),
  'optimizer': Scaled('adamw', 'muon', 'muon', 'adafactor'),
  'schedule': Scaled('cosine', 'cosine', 'cosine', 'rsqrt'),
  'rates': Scaled((3e-3,), (7e-3, 2e-2, 6e-2), (1.7e-3, 5e-3, 1.5e-2), (1e-2,)),
  'final': 0.01,
  'b2': 0.98,
  'clip_norm': 1.0,
  # weight of the z-loss, the squared log of the softmax denominator
  'z_loss': Field(1e-4, least=0),
}

SECTIONS = {
  'data': {
    # source of the text (docs/data.md)
    'source': Field(
      Scaled('stdlib/prose', 'stdlib', 'ngram:stdlib,length=10240', 'tfds:c4/en'), size=1
    )
  },
  'm1': common.M1
  | {
    'layers': Scaled(1, 2, 3, 3),
    'dim': Scaled(32, 128, 256, 256),
    'heads': Scaled(2, 4, 4, 4),
    'mlp_dim': Scaled(64, 512, 1024, 1024),
    'position': Scaled('t5', 't5', 'relative', 'relative'),
    'length': Field(Scaled(32, 128, 1024, 1024), least=4),
    'streams': Scaled(8, 16, 256, 256),
    'steps': Scaled(20, 1200, 20_000, 2_500_000),
    'batch_size': Scaled(8, 16, 128, 128),
    'optimizer': Scaled('muon', 'muon', 'muon', 'adafactor'),
    'schedule': Scaled('cosine', 'cosine', 'cosine', 'rsqrt'),
    'rates': Scaled((2e-2,), (2e-2,), (5e-3,), (1e-2,)),
    'warmup': Scaled(0.2, 1 / 24, 0.025, 0.004),
    'evaluate_every': Scaled(10, 200, 1000, 10_000),
    'checkpoint_every': Scaled(10, 200, 1000, 10_000),
    'validation_batches': Scaled(2, 16, 20, 20),  # batches of validation text in each evaluation
  },
  'tokenizers': {
    # bytes of the train split that tokenizers are trained on
    'train_bytes': Scaled(100_000, 2**22, 2**27, 2**30),
    # ids of the SentencePiece tokenizer
    'sentencepiece': Field(Scaled(512, 4096, 32_000, 32_000), least=258),
  },
  'ratio': {
    # names of tokenizers (experiments/coders.py)
    'methods': Field(Scaled(EVERY_SMOKE, EVERY, EVERY, EVERY), size=1),
    # bits of a token, for tokenizers with a choice
    'token_bits': Field((8, 16), size=1, choices=(8, 12, 16)),
    'examples': Field(Scaled(4, 32, 256, 1024), least=2),  # number of held-out documents
    'length': Field(Scaled(64, 3072, 10_240, 10_240), least=16),  # bytes of each document
  },
  'reset': {
    'examples': Field(Scaled(4, 32, 256, 256), least=2),  # number of held-out documents
    'length': Field(Scaled(64, 1024, 10_240, 10_240), least=16),  # bytes of each document
  },
  'uniformity': {
    # names of tokenizers (experiments/coders.py)
    'methods': Field(
      Scaled(
        ('gzip', 'greedy24', 'greedy128', 'ac'),
        *(('gzip', 'static_ac', 'greedy16', 'greedy32', 'greedy128', 'ac'),) * 3,
      ),
      size=1,
    ),
    # lengths of the bit strings that are counted
    'bits': Field(Scaled((1, 4), *((1, 2, 4, 8, 16),) * 3), size=1, choices=(1, 2, 4, 8, 16)),
    'length': Scaled(64, 4096, 10_240, 10_240),  # bytes of an excerpt, which is encoded on its own
    'bytes': Scaled(1024, 600_000, 2**24, 2**28),  # bytes of held-out text
    'most': Field(Scaled(2, 6, 6, 6), least=2),  # most excerpts of one document
    'draws': Field(20, least=2),  # samples of random bytes, for comparison
  },
  'stability': {
    # names of tokenizers (experiments/coders.py)
    'methods': Field(
      Scaled(
        ('sentencepiece', 'greedy12', 'ac'),
        *(('bytes', 'sentencepiece', 'greedy16', 'numbered16', 'parsed16', 'ac'),) * 3,
      ),
      size=1,
    ),
    # bits of a token, for tokenizers with a choice
    'token_bits': Field(Scaled(8, 16, 16, 16), choices=(8, 12, 16)),
    # number of words that are put before each text
    'prefixes': Field(Scaled(4, 16, 500, 500), least=2),
    'texts': Field(Scaled(2, 24, 24, 24), least=2),  # number of texts whose tokens are compared
    'text_length': Scaled(32, 100, 100, 100),  # bytes of each text
    # documents in which the texts of a token are looked up
    'examples': Field(Scaled(4, 20, 20, 20), least=2),
    'length': Scaled(64, 1024, 1024, 1024),  # bytes of each document
  },
  'm2': READER
  | {
    # pairs (tokenizer, bits of a token)
    'methods': Field(Scaled(M2_SMOKE, M2_CPU, M2_PAPER, M2_PAPER), size=1),
    # pairs of `methods` that are also trained on equal bytes of text
    'equal_text': Scaled(EQUAL_TEXT_SMOKE, EQUAL_TEXT_CPU, EQUAL_TEXT, EQUAL_TEXT),
    # sizes of M2: (name, layers, dim, heads, mlp_dim)
    'models': Field(
      Scaled((('tiny', 1, 32, 2, 64),), (('0.3m', 2, 96, 4, 384),), PAPER[:1], PAPER), size=1
    ),
    'position': Scaled('t5', 't5', 'relative', 'relative'),
    'steps': Scaled(6, 480, 3000, 200_000),
    'batch_size': Scaled(8, 6, 256, 256),
    'length': Scaled(64, 191, 512, 512),
    # whether examples share rows; else each has a row and is cropped
    'pack': Scaled(True, True, False, False),
    'warmup': Scaled(1 / 6, 1 / 48, 1 / 30, 0.05),
    'evaluate_every': Scaled(3, 120, 500, 5000),
    'checkpoint_every': Scaled(3, 240, 500, 5000),
    # bytes of text that are encoded as one stream of tokens
    'example_bytes': Scaled(64, 191, 10_240, 10_240),
    # bytes of training text; encoded before training and kept in memory
    'train_bytes': Scaled(20_000, 2**23, 2**31, 2**37),
    # the same for tokenizers that run M1 at every byte
    'stepped_bytes': Scaled(4_000, 800_000, 2**31, 2**37),
    # bytes of held-out text by which a learning rate is chosen
    'validation_bytes': Scaled(1_000, 10_000, 2**21, 2**24),
    'test_bytes': Scaled(1_000, 40_000, 2**23, 2**26),  # bytes of held-out text that are scored
  },
  'windows': {  # M2 scored within windows, for the first of m2.models
    # pairs (tokenizer, bits of a token), as in m2
    'methods': Field(Scaled(IN_WINDOWS_SMOKE, IN_WINDOWS_CPU, IN_WINDOWS, IN_WINDOWS), size=1)
  },
  'decompress': READER
  | {
    # names of tokenizers
    'methods': Field(Scaled(('ac', 'greedy24'), *(('ac', 'greedy16'),) * 3), size=1),
    # tokenizers of `methods` that are also trained on the tokens of another text, as a control
    'mismatched': Scaled((), *(('ac',),) * 3),
    'token_bits': Field(8, choices=(8, 12, 16)),  # bits of a token
    'layers': Scaled(1, 3, 12, 12),
    'dim': Scaled(32, 96, 768, 768),
    'heads': Scaled(2, 4, 12, 12),
    'mlp_dim': Scaled(64, 256, 3072, 3072),
    'position': Scaled('learned', 'learned', 'relative', 'relative'),
    # bytes of a text, which the model predicts from its tokens
    'text_bytes': Scaled(16, 20, 1024, 1024),
    'length': Scaled(40, 38, 1624, 1624),  # tokens of a row: the tokens of a text, then its bytes
    'steps': Scaled(6, 400, 20_000, 200_000),
    'batch_size': Scaled(8, 32, 64, 256),
    'warmup': Scaled(1 / 6, 0.125, 0.025, 0.05),
    'evaluate_every': Scaled(3, 200, 1000, 5000),
    'checkpoint_every': Scaled(3, 200, 1000, 5000),
    'train_texts': Scaled(200, 20_000, 2**19, 2**24),  # number of training texts
    'test_texts': Scaled(60, 6000, 10_000, 10_000),  # number of texts that are scored
  },
  'prompt': '',  # a text that the trained M2 continues
  'generate': {  # the continuation of the prompt
    # the M2 that continues it: a lossless pair of m2.methods
    'method': Scaled(('bytes', 8), ('numbered16', 8), ('exact16', 16), ('exact16', 16)),
    'bytes': 200,  # bytes of the continuation
    'temperature': Field(0.8, least=0),  # temperature of sampling
  },
}


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  return common.build(arg, TABLES, SECTIONS)
