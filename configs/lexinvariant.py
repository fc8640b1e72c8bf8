# SPDX-License-Identifier: Apache-2.0
"""Lexinvariant Language Models (Huang, Zelikman, Chen, Wu, Valiant, Liang; arXiv 2305.16349).

Claim: a language model needs no fixed token embeddings. Under fresh random rows for every sequence
it approaches a standard model as its context grows, since the context shows which symbol is which;
on the way it deciphers substitution ciphers and does better on symbol-pushing tasks.

Expected: on chains of 6 symbols a total regret near 2 log d! (2.7 log d! were measured on a chain
of 8) and a late perplexity within 10 % of the true chain's; on text, a gap to the standard model
that shrinks with context. At `gpu` the text is endless, from an n-gram law: the regret of both
models is exact, and nothing can be memorised.
Cost: smoke about a minute; see the README for cpu.

  python -m experiments.lexinvariant --config=configs/lexinvariant.py:cpu --workdir=runs/lex
"""

from ml_collections import ConfigDict

from configs import common

TABLES = (
  'theory', 'markov', 'context', 'cipher', 'in_context', 'regularizer', 'draws', 'cost',
)  # fmt: skip

# A model and its training; recipes override what differs.
MODEL = {
  'layers': 1,
  'dim': 16,
  'heads': 2,
  'head_dim': 0,  # 0: dim / heads
  'mlp_dim': 32,
  'gated': True,
  'activation': 'silu',
  'preceding': 0,  # number of previous symbols that are mixed into each input
  'max_distance': 128,  # the T5 bias has one value for all distances from here on
  'remat': False,
  'draw_kind': 'per_sequence',  # or seeded, shared
  'law': 'gaussian',  # or orthonormal
  'row_dim': 0,  # 0: dim
  'readout_scale': 'dim',  # logits / √row_dim, or / √V with 'vocabulary'
  'reveal': 0.8,  # share of fixed rows at first (see AnnealedLexinvariant); 0 for none
  'anneal': (0.05, 0.6),  # when that begins to fall, and when it is 0, as fractions of the steps
  'decipher': 0.3,  # weight of the probes' loss at the first step, falling to 0; 0 for none
  'length': 64,  # symbols of a sequence, in training and in tests
  'steps': 100,
  'batch_size': 16,
  'evaluate_every': 100,
  'checkpoint_every': 500,
  'optimizer': 'muon',
  'schedule': 'cosine',
  'rates': (2e-2,),  # peak learning rates, of which validation text chooses
  'rates_after': 0.2,  # part of the steps after which it does
  'warmup': 0.04,  # fraction of the steps
  'final': 0.01,  # of the peak
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

# Fields that change with the scale: smoke, cpu, gpu, paper.
SIZES = {
  'theory.sequences': (4, 24, 64, 64),
  'theory.length': (64, 1024, 1024, 1024),
  'theory.alphabets': ((4, 5), *((4, 5, 6, 7),) * 3),
  'theory.chains': (2, 4, 8, 8),
  'markov.alphabet': (4, 6, 8, 8),
  'markov.seeds': (2, 3, 3, 3),
  'markov.length': (16, 64, 256, 256),
  'markov.layers': (1, 3, 6, 6),
  'markov.dim': (16, 64, 256, 256),
  'markov.heads': (2, 4, 8, 8),
  'markov.mlp_dim': (32, 192, 768, 768),
  'markov.steps': (6, 2400, 10_000, 10_000),
  'markov.batch_size': (4, 48, 256, 256),
  'markov.test_sequences': (128, 1024, 4096, 4096),
  'markov.evaluate_every': (3, 100, 500, 500),
  'markov.checkpoint_every': (3, 300, 1000, 1000),
  'text.corpora': (
    (('prose', 'stdlib/prose'),),
    (('prose', 'stdlib/prose'), ('code', 'stdlib/source')),
    (('prose', 'ngram:stdlib/prose'), ('code', 'ngram:stdlib/source')),  # endless, of known law
    (('pile', 'tfds:pile'), ('wiki40b', 'tfds:wiki40b/en'), ('github', 'tfds:github')),
  ),
  'text.vocabularies': (('letters',), ('letters',), ('letters',), ('char', '32k')),
  'text.seeds': (1, 3, 3, 1),
  'text.length': (32, 256, 512, 512),
  'text.window': (16, 100, 100, 100),
  'text.layers': (1, 4, 12, 12),
  'text.dim': (16, 96, 512, 1024),
  'text.heads': (2, 4, 8, 8),
  'text.mlp_dim': (32, 256, 2048, 4096),
  'text.gated': (True, True, False, False),
  'text.activation': ('silu', 'silu', 'relu', 'relu'),
  'text.law': ('gaussian', 'orthonormal', 'gaussian', 'gaussian'),
  'text.row_dim': (32, 32, 0, 0),
  'text.reveal': (0.9, 0.9, 0.9, 0.0),
  'text.decipher': (0.5, 0.5, 0.5, 0.0),
  'text.steps': (6, 1500, 6000, 250_000),
  'text.batch_size': (8, 4, 64, 64),
  'text.optimizer': ('adamw', 'muon', 'adamw', 'adafactor'),
  'text.rates': ((2e-3,), (1e-2, 2e-2, 4e-2), (5e-4, 1e-3, 2e-3), (1e-2,)),
  'text.final': (0.01, 0.01, 0.1, 0.1),
  'text.warmup': (0.04, 0.04, 0.04, 0.004),
  'text.evaluate_every': (3, 250, 1000, 5000),
  'text.checkpoint_every': (3, 500, 1000, 5000),
  'text.test_sequences': (64, 256, 1000, 1000),
  'cipher.probe_dim': (16, 192, 1024, 2048),
  'cipher.steps': (4, 500, 5000, 10_000),
  'cipher.evaluate_every': (2, 250, 1000, 2000),
  'cipher.checkpoint_every': (2, 500, 1000, 2000),
  'cipher.texts': (4, 128, 1000, 1000),
  'in_context.examples': (6, 300, 1000, 1000),
  'regularizer.arms': (
    (('permuted', 0.0), ('permuted', 0.2), ('mixed', 0.2), ('lexinvariant',)),
    (('permuted', 0.0), ('permuted', 0.2), ('permuted', 1.0), ('mixed', 0.2), ('lexinvariant',)),
    ARMS,
    ARMS,
  ),
  'regularizer.source': (*('stdlib/prose',) * 2, *('ngram:stdlib/prose',) * 2),
  'regularizer.rates': ((2e-2,), *((1e-2, 2e-2, 4e-2),) * 3),
  'regularizer.optimizer': ('adamw', 'muon', 'muon', 'muon'),
  'regularizer.reveal': (0.0, 0.9, 0.9, 0.9),
  'regularizer.decipher': (0.0, 0.3, 0.3, 0.3),
  'regularizer.law': ('gaussian', *('orthonormal',) * 3),  # V = 40 in width 16 is too much
  'regularizer.seeds': (1, 3, 3, 3),
  'regularizer.layers': (1, 2, 4, 4),
  'regularizer.dim': (16, 64, 256, 256),
  'regularizer.heads': (2, 4, 8, 8),
  'regularizer.mlp_dim': (32, 128, 768, 768),
  'regularizer.length': (64, 64, 64, 64),
  'regularizer.steps': (6, 600, 10_000, 10_000),
  'regularizer.batch_size': (8, 48, 128, 128),
  'regularizer.evaluate_every': (3, 100, 500, 500),
  'regularizer.checkpoint_every': (3, 500, 1000, 1000),
  'regularizer.test_sequences': (8, 1000, 4000, 4000),
  'regularizer.examples': (6, 300, 1000, 1000),
  'draws.counts': ((1, 2), *((1, 2, 4, 8, 16),) * 3),
  'cost.vocab_sizes': ((16,), *((256, 32_768),) * 3),
  'cost.repeats': (2, 8, 30, 30),
  'cost.layers': (1, 4, 12, 12),
  'cost.dim': (16, 128, 512, 1024),
  'cost.heads': (2, 4, 8, 8),
  'cost.mlp_dim': (32, 512, 2048, 4096),
  'cost.length': (8, 128, 512, 512),
  'cost.batch_size': (8, 16, 16, 64),
}


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  scale, tables = common.parse(arg, TABLES)
  config = common.base(scale, tables)
  config.theory = {
    'alphabets': (4,),  # d
    'chains': 1,  # other ones for each d
    'sequences': 1,  # of each chain
    'length': 64,
    'concentration': 1.0,  # Dirichlet parameter of the transition rows
  }
  config.markov = MODEL | {
    'alphabet': 6,  # d
    'concentration': 0.3,  # of the chains' transition rows
    'chain_seed': 2,  # of the first chain; the next ones follow (chain 1 served the search)
    'seeds': 1,  # chains, each with a model of its own
    'test_sequences': 16,
    'law': 'orthonormal',
    'row_dim': 8,
    'head_dim': 16,
    'anneal': (0.05, 0.35),
  }
  config.text = MODEL | {
    'corpora': (),  # (name, source) pairs
    'vocabularies': (),  # symbols: letters, char (ASCII), bytes, 32k (SentencePiece)
    'seeds': 1,  # models of each kind
    'window': 100,  # symbols over which perplexity and votes are taken
    'test_sequences': 8,
    'draw_kind': 'shared',
  }
  config.cipher = {
    'probe_dim': 16,  # inner width of the probe's MLP
    'peak': 2e-3,
    'steps': 1,
    'evaluate_every': 1,
    'checkpoint_every': 1,
    'texts': 4,  # enciphered test texts
  }
  config.in_context = {
    'examples': 1,  # of each task; those below are this project's choice
    'pairs': 8,  # of LookUp
    'demonstrations': 4,  # of Permutation
  }
  config.regularizer = MODEL | {
    'source': '',
    'arms': (),  # (embedding, p, per) of each, the last two optional
    'seeds': 1,  # models of each arm
    'pairs': 4,  # of LookUp
    'questions': 8,  # of LookUp while training; one is asked in the evaluation
    'demonstrations': 4,  # of Permutation
    'examples': 1,  # of each task
    'test_sequences': 1,  # of text
    'per': 'type',  # set by the arm
    'preceding': 3,
    'draw_kind': 'shared',
    'law': 'orthonormal',
    'anneal': (0.1, 0.6),  # of the lexinvariant arm alone, as are reveal and decipher
  }
  config.draws = {'counts': (1,)}  # K, draws whose predictions are averaged
  config.prompt = ''  # a text in a substitution cipher, to be deciphered and continued
  config.cost = MODEL | {'vocab_sizes': (16,), 'repeats': 1, 'reveal': 0.0, 'decipher': 0.0}
  return common.sized(config, SIZES)
