# SPDX-License-Identifier: Apache-2.0
"""Emergent Semantics Beyond Token Embeddings (A. Bochkov; arXiv 2507.04886).

Claim: a language model needs no trained input embeddings: over frozen vectors made of the pixels of
Unicode glyphs a decoder trains as well, and (so the paper) reasons better.

Expected: losses of frozen and trained rows within a small margin; glyphs help where characters are
new or imitated; the published gap on multiple choice is one of format.
Cost: smoke under a minute, cpu at most 20 minutes on two cores.

  python -m experiments.visual_unicode --config=configs/visual_unicode.py:cpu --workdir=runs/visual
"""

from ml_collections import ConfigDict

from configs import common

TABLES = ('coverage', 'loss', 'homoglyphs', 'unseen_script', 'neighbours')

# A model and its training; sections override what differs. The paper says nothing of optimiser,
# rates and steps: those here are assumptions.
MODEL = {
  'layers': 1,
  'dim': 16,
  'heads': 2,
  'length': 32,
  'batch_size': 8,
  'steps': 6,
  'optimizer': 'adamw',
  'peak': 3e-3,
  'warmup': 0.05,  # fraction of the steps
  'final': 0.1,  # of the peak
  'weight_decay': 0.1,  # of kernels in the decoder
  'remat': False,
  'arms': ('glyph', 'trainable_0.02'),  # of experiments/visual_unicode/models.py
  'seeds': 1,
  'side_by_side': 5,  # seeds that train at once; 1 where a model fills the device
  'evaluate_every': 100,
  'checkpoint_every': 1000,
}
SCALES_OF_TRAINED = ('trainable_0.02', 'trainable_1')
FROZEN = ('glyph', 'glyph_rms_0.02', 'glyph_rms_1', 'shuffled', 'random', 'code_16', 'code_64')
ALL = (*SCALES_OF_TRAINED, 'trainable_glyph', 'glyph_deduped', *FROZEN)
WIDE = ('code_256', 'code_1024')  # codes for the paper's width alone
READERS = ('glyph', 'trainable_0.02', 'random', 'trainable_glyph')

# Fields that change with the scale: smoke, cpu, gpu, paper.
SIZES = {
  'data.source': ('stdlib/prose', 'stdlib/prose', 'stdlib', 'tfds:wiki40b/en'),
  'glyphs.font': ('dejavu', 'auto', 'auto', 'auto'),
  'glyphs.cell': (16, 32, 32, 32),
  'tokenizer.kind': ('restricted', 'restricted', 'unicode', 'unicode'),
  # On two cores the readout of 65,536 rows would take nine tenths of the time. Most of these ids
  # never occur in English, so that a vocabulary of those that do trains the same model.
  'tokenizer.vocab_size': (512, 768, 65_536, 65_536),
  'tokenizer.train_bytes': (200_000, 4_000_000, 50_000_000, 500_000_000),
  'loss.arms': (('trainable_0.02', 'glyph'), ALL, (*ALL, *WIDE), (*ALL, *WIDE)),
  'loss.references': (('trainable_0.02',), *(SCALES_OF_TRAINED,) * 3),
  'loss.seeds': (2, 5, 5, 5),
  'loss.side_by_side': (2, 5, 1, 1),
  'loss.layers': (1, 2, 16, 16),
  'loss.dim': (16, 64, 1024, 1024),
  'loss.heads': (2, 4, 32, 32),
  'loss.length': (32, 128, 1024, 1024),
  'loss.batch_size': (8, 8, 32, 512),
  'loss.steps': (6, 400, 100, 18_000),
  'loss.peak': (3e-3, 3e-3, 1e-3, 3e-4),
  'loss.evaluate_every': (3, 50, 25, 1000),
  'loss.checkpoint_every': (100, 1000, 1000, 1000),
  'homoglyphs.arms': (('glyph', 'trainable_0.02'), *(READERS,) * 3),
  'homoglyphs.byte_arms': (('trainable_0.02',),) * 4,
  'homoglyphs.texts': (16, 512, 2048, 2048),
  'homoglyphs.chars': (16, 64, 512, 512),
  'unseen_script.arms': (('glyph', 'trainable_0.02'), *(READERS[:3],) * 3),
  'unseen_script.trained': (('ARMENIAN',), *(('LATIN', 'ARMENIAN', 'GEORGIAN'),) * 3),
  'unseen_script.tested': (('GEORGIAN',), *(('CYRILLIC', 'GREEK'),) * 3),
  'unseen_script.seeds': (2, 3, 5, 5),
  'unseen_script.layers': (1, 2, 6, 6),
  'unseen_script.dim': (16, 64, 512, 512),
  'unseen_script.heads': (2, 4, 8, 8),
  'unseen_script.length': (48, 48, 64, 64),
  'unseen_script.batch_size': (8, 24, 256, 256),
  'unseen_script.steps': (6, 300, 1000, 1000),
  'unseen_script.texts': (
    (),
    (),
    *((('russian', 'tfds:wiki40b/ru'), ('greek', 'tfds:wiki40b/el')),) * 2,
  ),
  'neighbours.arms': (('glyph',), *(('glyph', 'trainable_0.02'),) * 3),
  'neighbours.tokens': (40, 200, 500, 500),
  'loss.validation': (2, 16, 16, 16),
  'loss.test': (2, 64, 64, 64),
}


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  scale, tables = common.parse(arg, TABLES)
  config = common.base(scale, tables)
  config.data = {'source': ''}  # stdlib, a path, a glob, tfds:NAME (docs/data.md)
  config.glyphs = {
    'font': 'auto',  # GNU Unifont where the system has it, else DejaVu; or a path
    'cell': 32,  # pixels along an edge
    'composition': 'squeeze',  # of n-grams; or area
    'alphabet': 'text',  # or byte_level
    'table': '',  # a table that experiments.glyphs drew, instead of drawing it
  }
  config.tokenizer = {
    'kind': 'unicode',  # restricted, bytes, or the file of a saved tokenizer
    'vocab_size': 65_536,
    'longest': 3,  # characters of an n-gram
    'train_bytes': 0,  # of the train split, to learn n-grams from
  }
  config.loss = MODEL | {
    'references': (),  # arms that the others are compared with
    'margin': 0.05,  # bits per byte that are of no consequence
    'validation': 16,  # batches
    'test': 16,
  }
  config.homoglyphs = {
    'tolerance': 0.05,  # pixels of a look-alike that may differ, as a share of the letter's ink
    'rates': (0.1, 0.3, 1.0),  # letters replaced, of those that have look-alikes
    'arms': (),  # of `loss`, with its tokenizer
    'byte_arms': (),  # trained like `loss`, over bytes
    'texts': 16,  # passages of the test split
    'chars': 64,  # of a passage, so short that it stays shorter than a row when attacked
  }
  config.unseen_script = MODEL | {
    'trained': ('LATIN', 'ARMENIAN', 'GEORGIAN'),
    'tested': ('CYRILLIC', 'GREEK'),
    'held_out': 0.2,  # of the trained scripts' letters
    'texts': (),  # (language, source) pairs of other scripts: paths, tfds:wiki40b/ru, …
  }
  config.neighbours = {'arms': (), 'tokens': 100}
  config.reasoning = MODEL | {}
  config.growth = MODEL | {}
  for field, values in SIZES.items():
    section, _, key = field.rpartition('.')
    (config[section] if section else config)[key] = values[common.SCALES.index(scale)]
  return config
