# SPDX-License-Identifier: Apache-2.0
"""Lexinvariant Language Models (Huang, Zelikman, Chen, Wu, Valiant, Liang; arXiv 2305.16349).

Claim: a language model needs no fixed token embeddings. Under fresh random rows for every sequence
it approaches a standard model as its context grows, since the context shows which symbol is which.
It also deciphers substitution ciphers, and is better at symbol-manipulation tasks.

Expected: on chains of 6 symbols a total regret near 2 log d! and a late perplexity within 10 % of
the true chain's; on text, a gap to the standard model that shrinks with context. At `gpu` the text
is endless, from an n-gram law: the regret of both models is exact, and nothing can be memorised.
Cost: smoke about a minute; see the README for cpu.

  python -m experiments.lexinvariant --config=lexinvariant:cpu --workdir=runs/lex
"""

from ml_collections import ConfigDict

from configs import common
from configs.fields import Field, Scaled

TABLES = ('theory', 'markov', 'context', 'cipher', 'in_context', 'regularizer', 'draws', 'cost')

# A model and its training; the sections say what differs.
MODEL = common.TRAINED | {
  'position': 't5',
  'norm': 'rms',
  'gated': True,
  'activation': 'silu',
  'init_std': 0.0,
  'short_conv': Field(0, least=0),  # number of previous symbols that are mixed into each input
  # random rows: new in each sequence, a function of the seed, or shared by a batch
  'row_sampling': Field('per_sequence', choices=('per_sequence', 'seeded', 'shared')),
  'law': Field('gaussian', choices=('gaussian', 'orthonormal')),  # distribution of random rows
  'row_dim': Field(0, least=0),  # width of random rows; 0: dim
  # what logits are divided by: √row_dim (dim), or √V (vocabulary)
  'logit_scale': Field('dim', choices=('dim', 'vocabulary')),
  # share of fixed rows at the first step (AnnealedLexinvariant); 0: none
  'reveal': Field(0.8, least=0, below=1),
  # shares of the steps after which `reveal` begins to fall, and is 0
  'anneal': Field((0.05, 0.6), least=0, most=1, size=2),
  'decipher': Field(0.3, least=0),  # weight of the probe loss at the first step; it falls to 0
  'optimizer': 'muon',
  'rates': (2e-2,),
  'warmup': 0.04,
  'final': 0.01,
  'b2': 0.98,
  'clip_norm': 1.0,
}

# Ways of hiding names (see experiments/lexinvariant/regularizer.py); the paper's B_p has p = 0.2.
ARMS = (
  *(('permuted', p) for p in (0.0, 0.1, 0.2, 0.5, 1.0)),
  ('permuted', 0.2, 'occurrence'),
  ('mixed', 0.2),
  ('interchangeable', 0.2),
  ('lexinvariant',),
)
FEW = (('permuted', 0.0), ('permuted', 0.2), ('mixed', 0.2), ('lexinvariant',))
PROSE = ('prose', 'stdlib/prose')
ENDLESS = (('prose', 'ngram:stdlib/prose'), ('code', 'ngram:stdlib/source'))  # of known law
PAPER = (('pile', 'tfds:pile'), ('wiki40b', 'tfds:wiki40b/en'), ('github', 'tfds:github'))
TEXT = MODEL | {
  # the texts, as pairs (name, source)
  'corpora': Field(Scaled((PROSE,), (PROSE, ('code', 'stdlib/source')), ENDLESS, PAPER), size=1),
  # tokens of the text: letters, char, bytes, or 32k (SentencePiece)
  'vocabularies': Field(Scaled(*(('letters',),) * 3, ('char', '32k')), size=1),
  'seeds': Scaled(1, 3, 3, 1),  # number of models of each kind
  'window': Scaled(16, 100, 100, 100),  # symbols over which perplexity and votes are averaged
  # number of held-out rows that are scored
  'test_sequences': Field(Scaled(64, 256, 1000, 1000), bytes=1),
  'row_sampling': 'shared',
  'law': Scaled('gaussian', 'orthonormal', 'gaussian', 'gaussian'),
  'row_dim': Scaled(32, 32, 0, 0),
  'reveal': Scaled(0.9, 0.9, 0.9, 0.0),
  'decipher': Scaled(0.5, 0.5, 0.5, 0.0),
  'layers': Scaled(1, 4, 12, 12),
  'dim': Scaled(16, 96, 512, 1024),
  'heads': Scaled(2, 4, 8, 8),
  'mlp_dim': Scaled(32, 256, 2048, 4096),
  'gated': Scaled(True, True, False, False),
  'activation': Scaled('silu', 'silu', 'relu', 'relu'),
  'length': Scaled(32, 256, 512, 512),
  'steps': Scaled(6, 1500, 6000, 250_000),
  'batch_size': Scaled(8, 4, 64, 64),
  'optimizer': Scaled('adamw', 'muon', 'adamw', 'adafactor'),
  'rates': Scaled((2e-3,), (1e-2, 2e-2, 4e-2), (5e-4, 1e-3, 2e-3), (1e-2,)),
  # share of the steps after which rates are compared; at `cpu` all of them, since random rows leave
  # the plateau of counting late, and trained rows bear a higher rate for a short time only
  'rate_share': Scaled(0.2, 1.0, 0.2, 0.2),
  'final': Scaled(0.01, 0.01, 0.1, 0.1),
  'warmup': Scaled(0.04, 0.04, 0.04, 0.004),
  'evaluate_every': Scaled(3, 250, 1000, 5000),
  'checkpoint_every': Scaled(3, 500, 1000, 5000),
}

SECTIONS = {
  # own text, in the place of text.corpora and regularizer.source: a path, a glob, … (docs/data.md)
  'data': {'source': ''},
  # folder that keeps the training text as tokens for later epochs and runs; '': none
  'token_cache': '',
  'theory': {
    # alphabet sizes d of the chains
    'alphabets': Field(Scaled((4, 5), (4, 5, 6, 7), (4, 5, 6, 7), (4, 5, 6, 7)), least=2, size=1),
    'chains': Scaled(2, 4, 8, 8),  # number of chains for each d
    'sequences': Field(Scaled(4, 24, 64, 64), bytes=1),  # sequences of each chain
    'length': Field(Scaled(64, 1024, 1024, 1024), bytes=1),  # symbols of each sequence
    'concentration': 1.0,  # Dirichlet parameter of the transition rows
  },
  'markov': MODEL
  | {
    'alphabet': Field(Scaled(4, 6, 8, 8), least=2),  # alphabet size d
    'concentration': 0.3,  # Dirichlet parameter of the chains' transition rows
    # seed of the first chain; the others follow (settings were chosen on chain 1)
    'chain_seed': Field(2, least=0),
    'seeds': Scaled(2, 3, 3, 3),  # number of chains, each with its own model
    # number of held-out sequences that are scored
    'test_sequences': Field(Scaled(128, 1024, 4096, 4096), bytes=1),
    'law': 'orthonormal',
    'row_dim': 8,
    'anneal': (0.05, 0.35),
    'layers': Scaled(1, 3, 6, 6),
    'dim': Scaled(16, 64, 256, 256),
    'heads': Scaled(2, 4, 8, 8),
    'head_dim': 16,
    'mlp_dim': Scaled(32, 192, 768, 768),
    'length': Scaled(16, 64, 256, 256),
    'steps': Scaled(6, 2400, 10_000, 10_000),
    'batch_size': Scaled(4, 48, 256, 256),
    'evaluate_every': Scaled(3, 100, 500, 500),
    'checkpoint_every': Scaled(3, 300, 1000, 1000),
  },
  'text': TEXT,
  'cipher': common.TRAINING
  | {  # the probe's training, on batches of text
    'probe_dim': Scaled(16, 192, 1024, 2048),  # width of the hidden layer of the probe's MLP
    'texts': Field(Scaled(4, 128, 1000, 1000), bytes=1),  # number of enciphered test texts
    'batch_size': TEXT['batch_size'],
    'length': TEXT['length'],
    'steps': Scaled(4, 500, 5000, 10_000),
    'rates': (2e-3,),
    'warmup': 0.0,
    'final': 0.01,
    'evaluate_every': Scaled(2, 250, 1000, 2000),
    'checkpoint_every': Scaled(2, 500, 1000, 2000),
  },
  'in_context': {  # this project's choice
    'examples': Field(Scaled(6, 300, 1000, 1000), most=10**6),  # questions of each task
    'pairs': Field(8, most=1000),  # pairs in a question of LookUp
    'demonstrations': Field(4, most=1000),  # demonstrations in a question of Permutation
  },
  'regularizer': MODEL
  | {
    # source of the training text (docs/data.md)
    'source': Field(Scaled(PROSE[1], PROSE[1], *(ENDLESS[0][1],) * 2), size=1),
    # (embedding, p, unit in which identities are hidden)
    'arms': Field(
      Scaled(FEW, (*FEW[:2], ('permuted', 1.0), *FEW[2:]), ARMS, ARMS), least=0, most=1, size=1
    ),
    'seeds': Scaled(1, 3, 3, 3),  # number of models of each arm
    'pairs': Field(4, most=1000),  # pairs in a question of LookUp
    # questions of a LookUp text in training; in evaluation there is one
    'questions': Field(8, most=1000),
    'demonstrations': Field(4, most=1000),  # demonstrations in a question of Permutation
    'examples': Field(Scaled(6, 300, 1000, 1000), most=10**6),  # questions of each task
    # number of held-out rows of text that are scored
    'test_sequences': Field(Scaled(8, 1000, 4000, 4000), bytes=1),
    'short_conv': 3,
    'row_sampling': 'shared',
    # distribution of random rows (40 ids do not fit into 16 dimensions)
    'law': Scaled('gaussian', *('orthonormal',) * 3),
    'anneal': (0.1, 0.6),  # as reveal and decipher, for the lexinvariant arm only
    'reveal': Scaled(0.0, 0.9, 0.9, 0.9),
    'decipher': Scaled(0.0, 0.3, 0.3, 0.3),
    'layers': Scaled(1, 2, 4, 4),
    'dim': Scaled(16, 64, 256, 256),
    'heads': Scaled(2, 4, 8, 8),
    'mlp_dim': Scaled(32, 128, 768, 768),
    'length': 64,  # symbols of a row
    'steps': Scaled(6, 600, 10_000, 10_000),
    'batch_size': Scaled(8, 48, 128, 128),
    'optimizer': Scaled('adamw', 'muon', 'muon', 'muon'),
    'rates': Scaled((2e-2,), *((1e-2, 2e-2, 4e-2),) * 3),
    'rate_share': Scaled(0.2, 0.5, 0.2, 0.2),
    'evaluate_every': Scaled(3, 100, 500, 500),
    'checkpoint_every': Scaled(3, 500, 1000, 1000),
  },
  'draws': {
    # numbers of samples of random rows over which predictions are averaged
    'counts': Field(Scaled((1, 2), *((1, 2, 4, 8, 16),) * 3), size=1)
  },
  'prompt': '',  # a text in a substitution cipher, which the trained model deciphers and continues
  'cost': MODEL
  | {
    # numbers of ids whose models are timed
    'vocab_sizes': Field(Scaled((16,), *((256, 32_768),) * 3), size=1),
    'repeats': Scaled(2, 8, 30, 30),  # number of timed steps
    'reveal': 0.0,
    'decipher': 0.0,
    'layers': Scaled(1, 4, 12, 12),
    'dim': Scaled(16, 128, 512, 1024),
    'heads': Scaled(2, 4, 8, 8),
    'mlp_dim': Scaled(32, 512, 2048, 4096),
    'length': Scaled(8, 128, 512, 512),
    'batch_size': Scaled(8, 16, 16, 64),
    'optimizer': 'adamw',
    'schedule': 'constant',
    'clip_norm': 0.0,
  },
}


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  return common.build(arg, TABLES, SECTIONS)
