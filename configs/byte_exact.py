# SPDX-License-Identifier: Apache-2.0
"""Exact Byte-Level Probabilities from Tokenized Language Models (2410.09303, 2506.14123).

Claim: a token model gives exact probabilities of the next byte, even if a prompt ends inside a
token; conditioning on the tokens of the prompt is biased.

Expected: the probabilities of a Markov source to 1e-12. Naive conditioning is off by 0.3 to 0.6 in
total variation, and token healing of one token by 0.03 to 0.35.
Cost: smoke under a minute, cpu at most 5 minutes a table on two cores.

  python -m experiments.byte_exact --config=byte_exact:cpu --workdir=runs/byte_exact
"""

from ml_collections import ConfigDict

from configs import common
from configs.fields import Field, Scaled

TABLES = ('bias', 'cut', 'fim', 'ensemble', 'cost')

SECTIONS = {
  'data': {
    # source of the text (docs/data.md)
    'source': Field(Scaled('stdlib/prose', 'stdlib/prose', 'stdlib', 'tfds:c4/en'), size=1)
  },
  # folder that keeps the training text as tokens for later epochs and runs; '': none
  'token_cache': '',
  'model': common.SMALL  # the models of all tables but bias: one for each tokenizer and seed
  | {
    # ids of each trained tokenizer
    'vocab_size': Field(Scaled(512, 1024, 8192, 32_000), least=256, most=2**24),
    # bytes of text that tokenizers are trained on
    'train_bytes': Scaled(60_000, 2_000_000, 2**26, 2**30),
    'layers': Scaled(1, 2, 8, 12),
    'dim': Scaled(16, 96, 512, 768),
    'heads': Scaled(2, 4, 8, 12),
    'length': Scaled(48, 128, 512, 2048),
    'batch_size': Scaled(8, 8, 64, 256),
    'steps': Scaled(4, 300, 4000, 100_000),
    'evaluate_every': 1000,
  },
  'cut': {
    'tokenizers': Field(Scaled(('bpe',), *(('bpe',),) * 3), size=1),  # names of tokenizers
    # number of prompts, each a held-out excerpt that is cut at a random byte
    'prompts': Field(Scaled(12, 200, 2000, 10_000), least=2),
    'prompt': Field(Scaled(40, 160, 512, 1024), least=17),  # bytes of the longest prompt
    'after': 16,  # bytes after the cut that are scored
    'greedy': 4,  # bytes of a completion, each the most likely one
    'beam': 8,  # most token sequences of a text that are followed, where not all can be
  },
  'fim': {
    'tokenizers': Field(Scaled(('bpe',), *(('bpe',),) * 3), size=1),  # names of tokenizers
    # source code to train and test on (docs/data.md)
    'source': Scaled('stdlib/source', 'stdlib/source', 'stdlib/source', 'tfds:github'),
    'texts': Field(Scaled(6, 120, 2000, 10_000), least=2),  # number of held-out texts, about
    'length': Field(Scaled(60, 160, 512, 1024), least=20),  # bytes of each text
    'greedy': 2,  # bytes of the middle that are guessed, each the most likely one
    'beam': 8,  # most token sequences of a text that are followed, where not all can be
  },
  'ensemble': {
    # names of the tokenizers whose models are averaged
    'tokenizers': Field(
      Scaled(('bytes', 'bpe'), *(('bytes', 'bpe', 'sentencepiece'),) * 3), size=1
    ),
    'texts': Field(Scaled(4, 64, 128, 128), least=2),  # number of held-out texts
    'length': Field(Scaled(40, 256, 1024, 2048), least=2),  # bytes of each text
  },
  'cost': {
    'tokenizers': Field(Scaled(('bpe',), *(('bpe',),) * 3), size=1),  # names of tokenizers
    'vocab_size': Field(Scaled(512, 4096, 8192, 32_000), least=256),  # ids of each
    'texts': Field(Scaled(3, 64, 128, 128), least=1),  # number of held-out texts
    'length': Field(Scaled(40, 512, 1024, 2048), least=2),  # bytes of each text
  },
  'bias': {
    # probabilities that a letter repeats the letter before it
    'stay': Field(Scaled((0.2,), *((0.2, 0.8),) * 3), size=1, least=0.01, most=0.99),
    # numbers of ids of the tokenizers
    'vocab': Field(Scaled((4, 8), *((4, 8, 16, 32, 64),) * 3), size=1, least=2),
    # letters of a text; all such texts are enumerated
    'letters': Field(Scaled(5, 10, 12, 12), least=1, most=14),
    # characters that tokenizers are trained on
    'chars': Field(Scaled(2_000, *(100_000,) * 3), bytes=1),
  },
}


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  return common.build(arg, TABLES, SECTIONS)
