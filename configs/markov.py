# SPDX-License-Identifier: Apache-2.0
"""Toward a Theory of Tokenization in LLMs (Rajaraman, Jiao, Ramchandran; arXiv 2404.08335).

Claim: on Markov sources of order k, a unigram model over characters is stuck at ln 2 = 0.693 nats
a character; over a good dictionary of d tokens it nears the entropy rate (0.500 at p = q = 0.8) as
d grows. A small transformer, which is slow to leave ln 2 on characters, gets within 0.02 of the
entropy rate in a few hundred steps on 10 BPE tokens.

Expected: closed forms to three digits; BPE-10 within 0.02 of 0.500 by step 500 for k ≤ 3.
Cost: smoke under a minute, cpu at most 12 minutes on two cores.

  python -m experiments.markov --config=configs/markov.py:cpu --workdir=runs/markov
"""

from ml_collections import ConfigDict

from configs import common

TABLES = ('ngram', 'blocks', 'token_ngram', 'bound', 'transformer', 'generalization', 'real_text')

# Fields that change with the scale: smoke, cpu, gpu, paper.
SIZES = {
  'data.source': ('stdlib/prose', 'stdlib', 'stdlib', 'tfds:wiki40b/en'),
  'orders': ((1, 2), (1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)),
  # An odd number at smoke: equal counts would leave a unigram no spread.
  'ngram.train_chars': (100_001, 4_000_000, 10_000_000, 100_000_000),
  'ngram.test_chars': (100_000, 2_000_000, 10_000_000, 100_000_000),
  'blocks.chars': (100_000, 10_000_000, 50_000_000, 100_000_000),
  'blocks.lengths': ((1, 2, 4), *((1, 2, 3, 4, 5, 6, 8, 10, 12),) * 3),
  'token_ngram.seeds': (2, 8, 10, 10),
  'token_ngram.sizes': ((4, 10, 64), *((4, 10, 20, 64, 256, 1024, 4096),) * 3),
  'token_ngram.dictionary_chars': (20_000, 1_000_000, 10_000_000, 10_000_000),
  'token_ngram.train_chars': (100_000, 3_000_000, 20_000_000, 50_000_000),
  'token_ngram.test_chars': (100_000, 1_000_000, 10_000_000, 10_000_000),
  'bound.sizes': ((64, 1024), *((16, 64, 256, 1024, 4096, 16384, 65536),) * 3),
  'bound.chars': (300_000, 10_000_000, 50_000_000, 100_000_000),
  'bound.seeds': (2, 8, 10, 10),
  'generalization.chars': (50_000, 1_000_000, 10_000_000, 10_000_000),
  'real_text.sizes': ((512, 1024), *((512, 1024, 2048, 4096, 8192, 16384, 32768),) * 3),
  'real_text.orders': ((0, 1, 2), *((0, 1, 2, 3, 4, 5),) * 3),
  'real_text.train_bytes': (400_000, 10_000_000, 100_000_000, 1_000_000_000),
  'real_text.test_bytes': (50_000, 1_000_000, 10_000_000, 10_000_000),
  'transformer.probabilities': ((0.8,), (0.8,), (0.8, 0.2), (0.8, 0.2)),
  'transformer.tied': ((True,), (True,), (True, False), (True, False)),
  'transformer.ngram_chars': (100_000, 1_000_000, 10_000_000, 10_000_000),
  'transformer.seeds': (2, 3, 5, 5),
  'transformer.layers': (1, 2, 2, 2),
  'transformer.dim': (8, 16, 64, 64),
  'transformer.context_chars': (32, 128, 512, 1024),
  'transformer.batch_size': (4, 16, 16, 16),
  'transformer.rates': ((), *((7e-4, 2e-3, 6e-3),) * 3),  # a factor of three apart
  'transformer.steps': (6, 600, 20_000, 20_000),
  'transformer.evaluate_every': (2, 20, 200, 200),
  'transformer.checkpoint_every': (3, 200, 2_000, 2_000),
  'transformer.validation_documents': (16, 256, 512, 512),
  'transformer.test_documents': (16, 2048, 4096, 4096),
}


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  scale, tables = common.parse(arg, TABLES)
  config = common.base(scale, tables)
  config.orders = (1,)  # k
  config.source = {
    'kind': 'switching',  # or 'random', 'interpolated'
    'p': 0.8,  # P(1|0)
    'q': 0.8,  # P(0|1)
    'alphabet_size': 2,  # of 'random'
    'delta': 0.5,  # weight of the random kernel in 'interpolated'
  }
  config.data = {'source': ''}  # of real text: stdlib, a path, a glob, tfds:NAME (docs/data.md)
  config.ngram = {'train_chars': 0, 'test_chars': 0}
  config.blocks = {'chars': 0, 'lengths': (1,)}  # r
  config.token_ngram = {
    'seeds': 1,  # each with its own dictionaries and streams
    'sizes': (2,),  # d
    'sequential_texts': 1000,  # d of Algorithm 1, whose dictionary may end smaller
    'dictionary_chars': 0,  # to learn dictionaries from
    'train_chars': 0,  # to count tokens on
    'test_chars': 0,
    'exact_merges_up_to': 1024,  # largest d whose ordered merges are solved exactly (dense)
  }
  config.bound = {
    'probabilities': (0.8, 0.9, 0.95),
    'sizes': (2,),
    'chars': 0,  # that a dictionary may be learned from; LZW stops when it is full
    'seeds': 1,  # dictionaries
  }
  config.generalization = {'chars': 0, 'sizes': (10, 64), 'learned_at': (0.6, 0.95)}
  config.real_text = {
    'sizes': (512,),  # dictionary sizes
    'orders': (0,),  # character m-grams to compare with
    'train_bytes': 0,
    'test_bytes': 0,
  }
  config.transformer = {
    'seeds': 1,  # each with its own dictionary, model and documents; trained together
    'tokenizers': ('characters', 'bpe'),
    'vocab_size': 10,  # of BPE, with the two characters
    'dictionary_chars': 10_000,
    'ngram_chars': 0,  # to count m-grams over an arm's tokens on, and as many to score
    'probabilities': (0.8,),  # p = q
    'tied': (True,),
    'layers': 2,
    'heads': 2,
    'dim': 16,
    'context_chars': 128,
    'batch_size': 16,
    'steps': 600,
    'evaluate_every': 20,
    'checkpoint_every': 200,
    'validation_documents': 256,
    'test_documents': 2048,
    'within': 0.02,  # nats a character above H∞ that count as reached
    'rates': (),  # to choose the peak from, for each arm; none: `peak`
    'rate_share': 0.5,  # of the steps, for the choice
    'peak': 2e-3,
    'warmup': 0.02,  # fraction of the steps
    'final': 0.2,  # of the peak (OneCycle of the official code ends at a fifth)
    'weight_decay': 1e-3,
  }
  return common.sized(config, SIZES)
