# SPDX-License-Identifier: Apache-2.0
"""Every tokenizer under every embedding, on the same bytes.

Claim: any tokenizer runs under any embedding, and bits per byte, FLOPs per byte and bytes per token
compare them, at equal bytes of context and equal FLOPs of training (experiments/matrix/corpus.py
has the definitions). Among the cells are some that no paper known to us measured: lexinvariant rows
over compressed text, glyphs over subwords.

Expected: no number is published. Codecs that know a Markov source's law are above its entropy rate
by what windows forget and by the room that they keep for other bytes.
Cost: cpu is sized for at most 25 minutes on two quiet cores.

  python -m experiments.matrix --config=configs/matrix.py:cpu --workdir=runs/matrix
"""

from ml_collections import ConfigDict

from configs import common

TABLES = ('grid', 'budget', 'markov')  # grid has the rows of tables tokenizers and untried too

DICTIONARIES = (
  'bytes', 'characters', 'blocks', 'bpe', 'lzw', 'sentencepiece', 'wordpiece', 'unicode',
)  # fmt: skip
EMBEDDINGS = ('learned', 'lexinvariant', 'glyph', 'random', 'code')

# Fields that change with the scale: smoke, cpu, gpu, paper.
SIZES = {
  'data.source': ('stdlib/prose', 'stdlib', 'ngram:stdlib', 'tfds:c4/en'),
  'glyphs.font': ('dejavu', 'auto', 'auto', 'auto'),
  'glyphs.cell': (16, 32, 32, 32),
  # 4,096 ids on two cores: of 65,536 the readout would take nearly all of the time.
  'tokenizers.vocab_size': (768, 4096, 65_536, 65_536),
  'tokenizers.token_bits': (12, 12, 16, 16),
  'tokenizers.train_bytes': (100_000, 2**21, 2**26, 2**30),
  'm1.layers': (1, 1, 3, 3),
  'm1.dim': (16, 64, 256, 256),
  'm1.heads': (2, 4, 4, 4),
  'm1.mlp_dim': (32, 256, 1024, 1024),
  'm1.length': (16, 32, 1024, 1024),
  'm1.streams': (8, 16, 256, 256),
  'm1.position': ('t5', 't5', 'relative', 'relative'),
  'm1.steps': (4, 500, 20_000, 2_500_000),
  'm1.batch_size': (8, 32, 128, 128),
  'm1.optimizer': ('muon', 'muon', 'muon', 'adafactor'),
  'm1.schedule': ('cosine', 'cosine', 'cosine', 'rsqrt'),
  'm1.rates': ((2e-2,), (2e-2,), (5e-3,), (1e-2,)),
  'm1.warmup': (0.25, 0.04, 0.025, 0.004),
  'm1.evaluate_every': (4, 250, 1000, 10_000),
  'm1.checkpoint_every': (4, 250, 1000, 10_000),
  'm1.validation_batches': (1, 8, 20, 20),
  'grid.tokenizers': (
    ('bpe', 'numbered12'),
    (*DICTIONARIES, 'numbered12'),
    *((*DICTIONARIES, 'numbered16', 'exact16'),) * 2,
  ),
  'grid.embeddings': (('learned', 'glyph'), *(EMBEDDINGS,) * 3),
  'grid.seeds': (2, 3, 3, 3),
  'grid.side_by_side': (2, 3, 1, 1),
  'grid.layers': (1, 2, 8, 24),
  'grid.dim': (16, 64, 512, 1024),
  'grid.heads': (2, 4, 8, 16),
  'grid.example_bytes': (32, 128, 2048, 8192),
  'grid.batch_bytes': (128, 1024, 2**17, 2**20),
  'grid.teraflops': (4e-5, 0.07, 20_000.0, 2e6),
  'grid.train_bytes': (4_000, 400_000, 2**28, 2**32),
  'grid.validation_bytes': (1_000, 32_768, 2**20, 2**22),
  'grid.test_bytes': (1_000, 65_536, 2**22, 2**24),
  'grid.optimizer': ('adamw', 'muon', 'muon', 'adamw'),
  'grid.peak': (3e-3, 2e-2, 5e-3, 3e-4),
  # A factor of three apart: embeddings and tokenizers need different rates.
  'grid.rates': ((), (7e-3, 2e-2, 6e-2), (1.7e-3, 5e-3, 1.5e-2), (1e-4, 3e-4, 9e-4)),
  'budget.tokenizers': (
    ('bytes', 'bpe'),
    ('bytes', 'bpe', 'numbered12'),
    *(('bytes', 'bpe', 'numbered16'),) * 2,
  ),
  'budget.times': (2.0, 30.0, 2.0, 4.0),
  'budget.train_bytes': (8_000, 8_000_000, 2**29, 2**34),
  'orders': ((2,), (1, 2, 3), (1, 2, 3), (1, 2, 3)),
  'markov.bits': ((12,), (12, 16), (12, 16), (12, 16)),
  'markov.dictionary_chars': (40_000, 3_000_000, 20_000_000, 20_000_000),
  'markov.train_chars': (40_000, 3_000_000, 20_000_000, 20_000_000),
  'markov.test_chars': (20_000, 1_000_000, 10_000_000, 10_000_000),
  'markov.seeds': (2, 8, 8, 8),
  'markov.document_chars': (200, 1_000, 10_000, 10_000),
}


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  scale, tables = common.parse(arg, TABLES)
  config = common.base(scale, tables)
  config.data = {'source': ''}  # stdlib, a path, a glob, tfds:NAME (docs/data.md)
  config.glyphs = {'font': 'auto', 'cell': 32}  # as in configs/visual_unicode.py
  config.m1 = common.M1
  config.tokenizers = {
    'vocab_size': 768,  # ids of learned dictionaries, at most
    'token_bits': 12,  # of tokens by M1, at most
    'train_bytes': 1,  # of the train split, to learn on
  }
  config.grid = {
    'tokenizers': (),  # names and files: experiments/matrix/tokens.py
    'embeddings': (),  # names: experiments/matrix/models.py
    'seeds': 1,
    'side_by_side': 1,  # seeds that train at once; 1 where a model fills the device
    'layers': 1,
    'dim': 16,
    'heads': 2,
    'remat': False,
    'example_bytes': 32,  # of context: text is cut into such, each a document
    'batch_bytes': 128,  # of a step, about
    'teraflops': 1e-3,  # of training, of each model
    'train_bytes': 1,  # of text, encoded whole before training
    'validation_bytes': 1,  # to choose a rate by
    'test_bytes': 1,
    'optimizer': 'adamw',  # or muon
    'rates': (),  # to choose the peak from, for each cell; none: `peak`
    'rate_share': 0.2,  # of the steps, for the choice
    'peak': 3e-3,
    'warmup': 0.05,  # fraction of the steps
    'final': 0.1,  # of the peak
    'weight_decay': 0.1,  # of kernels in the decoder
    'checkpoint_every': 1000,
  }
  config.budget = {  # learned rows; what is not here is as in grid
    'tokenizers': (),
    'times': 1.0,  # the teraflops of the grid
    'train_bytes': 1,
  }
  config.orders = (1,)  # k of the Markov sources
  config.source = {  # as in configs/markov.py
    'kind': 'switching',
    'p': 0.8,
    'q': 0.8,
    'alphabet_size': 2,
    'delta': 0.5,
  }
  config.markov = {
    'bits': (12,),  # of windows; dictionaries have as many ids
    'dictionary_chars': 1,  # that BPE and LZW learn from
    'train_chars': 1,  # to count tokens on
    'test_chars': 1,
    'document_chars': 1,  # of each stream of the coder without windows
    'seeds': 1,  # dictionaries and texts
  }
  return common.sized(config, SIZES)
