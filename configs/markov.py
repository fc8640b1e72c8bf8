# SPDX-License-Identifier: Apache-2.0
"""Toward a Theory of Tokenization in LLMs (Rajaraman, Jiao, Ramchandran; arXiv 2404.08335).

Claim: on Markov sources of order k, a unigram model over characters is stuck at ln 2 = 0.693 nats
a character; over a good dictionary of d tokens it nears the entropy rate (0.500 at p = q = 0.8) as
d grows. A small transformer, which is slow to leave ln 2 on characters, gets within 0.02 of the
entropy rate in a few hundred steps on 10 BPE tokens.

Expected: closed forms to three digits; BPE-10 within 0.02 of 0.500 by step 500 for k ≤ 3.
Cost: smoke under a minute, cpu at most 12 minutes on two cores.

  python -m experiments.markov --config=markov:cpu --workdir=runs/markov
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import MODEL, TRAINING
from configs.fields import Field, Scaled

TABLES = ('ngram', 'blocks', 'token_ngram', 'bound', 'transformer', 'generalization', 'real_text')

SOURCE = {  # of Markov text (lib.tasks.markov.chains.make)
  # kind of Markov chain
  'kind': Field('switching', choices=('switching', 'random', 'interpolated')),
  'p': Field(0.8, above=0, below=1),  # probability of 1 after 0
  'q': Field(0.8, above=0, below=1),  # probability of 0 after 1
  'alphabet_size': Field(2, least=2),  # alphabet size of the kind `random`
  'delta': Field(0.5, least=0, most=1),  # weight of the random chain in the kind `interpolated`
}


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  lengths = (1, 2, 3, 4, 5, 6, 8, 10, 12)
  tokens = (4, 10, 20, 64, 256, 1024, 4096)
  bounds = (16, 64, 256, 1024, 4096, 16384, 65536)
  words = (512, 1024, 2048, 4096, 8192, 16384, 32768)
  contexts = (0, 1, 2, 3, 4, 5)
  rates = (7e-4, 2e-3, 6e-3)  # a factor of three apart
  sections = {
    'data': {
      # source of real text (docs/data.md)
      'source': Field(Scaled('stdlib/prose', 'stdlib', 'stdlib', 'tfds:wiki40b/en'), size=1)
    },
    'source': SOURCE,  # the Markov chain that generates text
    # orders k of the Markov chains
    'orders': Field(Scaled((1, 2), (1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)), size=1),
    'ngram': {
      # characters that n-grams are counted on; odd at smoke, since equal counts would leave a
      # unigram no spread
      'train_chars': Field(Scaled(100_001, 4_000_000, 10_000_000, 100_000_000), bytes=1),
      # characters that n-gram models are scored on
      'test_chars': Field(Scaled(100_000, 2_000_000, 10_000_000, 100_000_000), bytes=1),
    },
    'blocks': {
      # characters of the stream that is cut into blocks
      'chars': Field(Scaled(100_000, 10_000_000, 50_000_000, 100_000_000), bytes=1),
      # lengths r of the blocks
      'lengths': Field(Scaled((1, 2, 4), lengths, lengths, lengths), size=1),
    },
    'token_ngram': {
      # number of seeds, each with its own dictionaries and streams
      'seeds': Field(Scaled(2, 8, 10, 10), least=2, most=1000),
      # numbers of tokens d of the dictionaries
      'sizes': Field(Scaled((4, 10, 64), tokens, tokens, tokens), size=1),
      'sequential_texts': 1000,  # texts of Algorithm 1, which merges at most one pair in each
      # characters that dictionaries are learned on
      'dictionary_chars': Field(Scaled(20_000, 1_000_000, 10_000_000, 10_000_000), bytes=1),
      # characters that tokens are counted on
      'train_chars': Field(Scaled(100_000, 3_000_000, 20_000_000, 50_000_000), bytes=1),
      # characters that models are scored on
      'test_chars': Field(Scaled(100_000, 1_000_000, 10_000_000, 10_000_000), bytes=1),
      # largest d for which unigram losses after merges are exact
      'exact_merges_up_to': Field(1024, least=0),
    },
    'bound': {
      # p = q of the binary chains
      'probabilities': Field((0.8, 0.9, 0.95), above=0, below=1, size=1),
      # largest numbers of tokens d of the dictionaries
      'sizes': Field(Scaled((64, 1024), bounds, bounds, bounds), size=1),
      # most characters that LZW reads; it stops when the dictionary is full
      'chars': Field(Scaled(300_000, 10_000_000, 50_000_000, 100_000_000), bytes=1),
      'seeds': Field(Scaled(2, 8, 10, 10), most=1000),  # number of dictionaries
    },
    'generalization': {
      # characters of the stream that is encoded
      'chars': Field(Scaled(50_000, 1_000_000, 10_000_000, 10_000_000), bytes=1),
      'sizes': Field((10, 64), size=1),  # numbers of tokens d of the dictionaries
      # p = q of other chains, on whose text dictionaries are learned too
      'learned_at': Field((0.6, 0.95), above=0, below=1),
    },
    'real_text': {
      'sizes': Scaled((512, 1024), words, words, words),  # numbers of tokens of the dictionaries
      # bytes of context of n-gram models, for comparison
      'orders': Field(Scaled((0, 1, 2), contexts, contexts, contexts), least=0, size=1),
      # bytes on which dictionaries are learned and tokens are counted
      'train_bytes': Scaled(400_000, 10_000_000, 100_000_000, 1_000_000_000),
      # bytes of held-out text that are scored
      'test_bytes': Scaled(50_000, 1_000_000, 10_000_000, 10_000_000),
    },
    'transformer': MODEL
    | TRAINING
    | {
      # number of seeds, each with its own dictionary, model and documents
      'seeds': Scaled(2, 3, 5, 5),
      'side_by_side': Scaled(2, 3, 5, 5),
      # names of tokenizers
      'tokenizers': Field(('characters', 'bpe'), choices=('characters', 'bpe'), size=1),
      'vocab_size': Field(10, most=2**24),  # ids of BPE, the two characters included
      'dictionary_chars': Field(10_000, bytes=1),  # characters that a dictionary is learned on
      # characters that m-grams over tokens are counted on, and as many that they are scored on
      'ngram_chars': Field(Scaled(100_000, 1_000_000, 10_000_000, 10_000_000), bytes=1),
      # p = q of the chains
      'probabilities': Field(
        Scaled((0.8,), (0.8,), (0.8, 0.2), (0.8, 0.2)), above=0, below=1, size=1
      ),
      # whether the LM head is the transposed input table
      'tied': Field(Scaled((True,), (True,), (True, False), (True, False)), size=1),
      'layers': Scaled(1, 2, 2, 2),
      'dim': Scaled(8, 16, 64, 64),
      'position': 'learned',
      # characters of a row, which then has as many tokens as they take
      'length': Scaled(32, 128, 512, 1024),
      'batch_size': Scaled(4, 16, 16, 16),
      'steps': Scaled(6, 600, 20_000, 20_000),
      'rates': Scaled((2e-3,), rates, rates, rates),
      # share of the steps after which rates are compared; enough to leave the plateau of characters
      'rate_share': 0.5,
      'warmup': 0.02,
      'final': 0.2,  # last learning rate, as a share of the peak; as OneCycle in the official code
      'weight_decay': 1e-3,
      'evaluate_every': Scaled(2, 20, 200, 200),
      'checkpoint_every': Scaled(3, 200, 2_000, 2_000),
      # documents by which a rate is chosen
      'validation_documents': Field(Scaled(16, 256, 512, 512), bytes=1),
      'test_documents': Field(Scaled(16, 2048, 4096, 4096), bytes=1),  # documents that are scored
      # a loss counts as reached within this distance of the entropy rate, in nats per character
      'within': 0.02,
    },
  }
  return common.build(arg, TABLES, sections)
