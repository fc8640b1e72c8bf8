# SPDX-License-Identifier: Apache-2.0
"""Emergent Semantics Beyond Token Embeddings (A. Bochkov; arXiv 2507.04886).

Claim: a language model needs no trained input embeddings: over frozen vectors made of the pixels of
Unicode glyphs a decoder trains as well, and (so the paper) reasons better.

Expected: frozen rows of every kind train, but end above trained rows by more than the margin of
0.05 bits per byte. Glyphs do no better there than random frozen rows, and worse than they do on
scripts that were never read. They help against look-alikes, and as a start of trained rows. The
published gap on multiple choice is one of format.
Cost: cpu is sized for at most 30 minutes on two quiet cores.

  python -m experiments.visual_unicode --config=configs/visual_unicode.py:cpu --workdir=runs/visual
"""

from ml_collections import ConfigDict

from configs import common

TABLES = (
  'coverage', 'loss', 'reasoning', 'homoglyphs', 'unseen_script', 'neighbours', 'growth',
)  # fmt: skip

# A model and its training; sections override what differs. The paper says nothing of optimiser,
# rates and steps: those here are assumptions.
MODEL = {
  'layers': 1,
  'dim': 16,
  'heads': 2,
  'length': 32,
  'batch_size': 8,
  'steps': 6,
  'optimizer': 'adamw',  # or muon
  'peak': 3e-3,
  'rates': (),  # peaks, of which each arm takes the best by validation; empty: `peak` for all
  'rate_share': 0.2,  # of the steps, to choose the rate with one seed
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
FROZEN = ('glyph', 'glyph_rms_1', 'shuffled', 'random', 'code_16', 'code_64')
STARTS = ('trainable_glyph', 'trainable_shuffled', 'trainable_random')  # of one norm
ALL = (*SCALES_OF_TRAINED, *STARTS, 'glyph_deduped', *FROZEN, 'equal')
WIDE = ('glyph_rms_0.02', 'code_256', 'code_1024')  # at larger widths alone
# What arms are compared with: trained rows, each start, and rows without form or without text.
REFERENCES = ('trainable_0.02', 'trainable_1', *STARTS[1:], 'random', 'shuffled', 'equal')
READERS = ('glyph', 'trainable_0.02', 'random', 'trainable_glyph')
# Rates that are tried, by scale; a smoke run trains with its `peak`.
RATES = ((), (2e-2, 5e-2, 1.2e-1), (3e-4, 1e-3, 3e-3), (1e-4, 3e-4, 1e-3))

# Fields that change with the scale: smoke, cpu, gpu, paper.
SIZES = {
  # Endless text of a known law; its documents are longer than a row of 1,024 tokens.
  'data.source': (*('stdlib/prose',) * 2, 'ngram:stdlib,length=16384', 'tfds:wiki40b/en'),
  'glyphs.font': ('dejavu', 'auto', 'auto', 'auto'),
  'glyphs.cell': (16, 32, 32, 32),
  'tokenizer.kind': ('restricted', 'restricted', 'unicode', 'unicode'),
  # On two cores the readout of 65,536 rows would take 99 % of the time. Nearly all of these ids
  # never occur in English text: the vocabulary of `cpu` is bytes, the characters and n-grams that
  # occur most, and the look-alikes of Latin letters, cut and drawn like those of the whole.
  'tokenizer.vocab_size': (640, 1024, 65_536, 65_536),
  'tokenizer.longest': (3, 6, 6, 3),  # the paper's 3, or whole words for `neighbours`
  'tokenizer.train_bytes': (200_000, 4_000_000, 50_000_000, 500_000_000),
  'loss.arms': (('trainable_0.02', 'glyph'), ALL, (*ALL, *WIDE), (*ALL, *WIDE)),
  'loss.references': (REFERENCES,) * 4,
  'loss.seeds': (2, 5, 5, 5),
  'loss.side_by_side': (2, 5, 1, 1),
  'loss.layers': (1, 2, 16, 16),
  'loss.dim': (16, 64, 1024, 1024),
  'loss.heads': (2, 4, 32, 32),
  'loss.length': (32, 128, 1024, 1024),
  'loss.batch_size': (4, 8, 32, 512),
  'loss.steps': (6, 200, 100, 18_000),
  # In 400 steps at `cpu` Muon came to 2.63 bits per byte of validation text, AdamW to 3.33.
  'loss.optimizer': ('adamw', 'muon', 'adamw', 'adamw'),
  'loss.peak': (3e-3, 5e-2, 1e-3, 3e-4),
  # At `cpu` the second rate is the best on validation text for frozen and for trained rows.
  'loss.rates': RATES,
  'loss.evaluate_every': (3, 40, 25, 1000),
  'loss.checkpoint_every': (100, 1000, 1000, 1000),
  'loss.validation': (8, 64, 512, 8192),
  'loss.test': (64, 512, 2048, 32_768),
  'homoglyphs.arms': (('glyph', 'trainable_0.02'), *(READERS,) * 3),
  'homoglyphs.byte_arms': (('trainable_0.02',),) * 4,
  'homoglyphs.texts': (16, 256, 2048, 2048),
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
  'unseen_script.steps': (6, 260, 1000, 1000),
  'unseen_script.optimizer': ('adamw', 'muon', 'adamw', 'adamw'),
  'unseen_script.peak': (3e-3, 5e-2, 1e-3, 1e-3),
  'unseen_script.rates': (*RATES[:3], (3e-4, 1e-3, 3e-3)),
  'unseen_script.texts': (
    (),
    (),
    *((('russian', 'tfds:wiki40b/ru'), ('greek', 'tfds:wiki40b/el')),) * 2,
  ),
  'neighbours.arms': (('glyph',), *(('glyph', 'trainable_0.02'),) * 3),
  'neighbours.tokens': (40, 160, 500, 500),
  'neighbours.occurrences': (1, 5, 20, 20),
  'reasoning.arms': (('trainable_0.02', 'glyph'), *(('trainable_0.02', 'glyph', 'random'),) * 3),
  'reasoning.naive_arms': ((), (), ('glyph',), ('glyph',)),
  'reasoning.seeds': (2, 5, 5, 5),
  'reasoning.side_by_side': (2, 5, 1, 1),
  'reasoning.entities': (6, 20, 500, 2000),
  'reasoning.attributes': (2, 2, 4, 4),
  'reasoning.words': (6, 8, 12, 12),
  'reasoning.sample': (200, 2000, 50_000, 100_000),
  'reasoning.vocab_size': (384, 512, 65_536, 65_536),
  'reasoning.longest': (8, 8, 5, 3),
  'reasoning.layers': (1, 2, 16, 16),
  'reasoning.dim': (16, 96, 1024, 1024),
  'reasoning.heads': (2, 4, 32, 32),
  'reasoning.length': (64, 128, 1024, 1024),
  'reasoning.batch_size': (4, 16, 32, 512),
  'reasoning.steps': (4, 320, 1000, 18_000),
  # In 300 steps Muon finds how to look up an option, AdamW in 400 not.
  'reasoning.optimizer': ('adamw', 'muon', 'adamw', 'adamw'),
  'reasoning.peak': (3e-3, 3e-2, 1e-3, 3e-4),
  'reasoning.rates': (RATES[0], (1e-2, 3e-2, 1e-1), *RATES[2:]),
  'growth.arms': (('glyph',),) * 4,
  'growth.seeds': (2, 3, 3, 3),
  'growth.side_by_side': (2, 3, 1, 1),
  'growth.layers': (2, 4, 6, 6),
  'growth.dim': (16, 64, 1024, 1024),  # the sequel's 4096 needs glyphs.cell=64
  'growth.heads': (2, 4, 32, 32),
  'growth.length': (32, 128, 1024, 1024),
  'growth.batch_size': (4, 8, 32, 512),
  'growth.steps': (6, 240, 100, 18_000),
  'growth.optimizer': ('adamw', 'muon', 'adamw', 'adamw'),
  'growth.peak': (3e-3, 5e-2, 1e-3, 3e-4),
  'growth.rates': RATES,
  'growth.validation': (8, 64, 512, 8192),
  'growth.test': (16, 512, 2048, 32_768),
}


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  scale, tables = common.parse(arg, TABLES)
  config = common.base(scale, tables)
  config.data = {'source': ''}  # stdlib, a path, a glob, tfds:NAME, ngram:SOURCE (docs/data.md)
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
    'validation': 16,  # excerpts of `length` tokens
    'test': 16,
  }
  config.homoglyphs = {
    'tolerance': 0.05,  # pixels of a look-alike that may differ, as a share of the letter's ink
    'rates': (0.1, 0.3, 1.0),  # letters replaced, of those that have look-alikes
    'arms': (),  # of `loss`, with its tokenizer
    'byte_arms': (),  # trained like `loss`, over bytes
    'reference': 'glyph',  # arm that others are compared with
    'texts': 16,  # passages of the test split
    'chars': 64,  # of a passage, so short that it stays shorter than a row when attacked
  }
  config.unseen_script = MODEL | {
    'trained': ('LATIN', 'ARMENIAN', 'GEORGIAN'),
    'tested': ('CYRILLIC', 'GREEK'),
    'held_out': 0.2,  # of the trained scripts' letters
    'validation': 0.1,  # of them, to choose the rate with
    'references': ('trainable_0.02', 'random'),  # arms that the others are compared with
    'texts': (),  # (language, source) pairs of other scripts: paths, tfds:wiki40b/ru, …
  }
  config.neighbours = {
    'arms': (),  # of `loss`
    'tokens': 100,  # the most frequent ones, compared by form
    'occurrences': 5,  # of a word in the test text, at least, to compare its class
  }
  config.reasoning = MODEL | {
    'references': ('trainable_0.02', 'random'),  # arms that the others are compared with
    'naive_arms': (),  # arms trained on sentences alone too, without ever seeing the template
    'entities': 200,
    'attributes': 4,
    'words': 12,  # values that an attribute can have
    'options': 4,  # of a question
    'told': 0.2,  # of the facts: in sentences only
    'unseen': 0.2,  # of the facts: in no training text
    'asked': 0.5,  # of the documents: questions; the rest are sentences
    'spaced': 0.5,  # of these questions: a space precedes the answer
    'validation': 4,  # batches of documents that are not trained on, to choose the rate with
    'sample': 2000,  # documents of each seed that the tokenizer is learned from
    'vocab_size': 512,
    'longest': 8,  # characters of an n-gram: words
    'questions': '',  # own questions: CSV, JSON, or tfds:ai2_arc/ARC-Challenge (docs/data.md)
    'split': 'test',  # of a TFDS set
    'limit': 0,  # own questions at most; 0: all
    'layout': 'inline',  # options after one another, or on lines
    'context': 1024,  # tokens; longer prompts lose their beginning
    'ask_batch': 64,  # questions a batch
  }
  config.growth = MODEL | {
    'experts': 2,
    'margin': 0.05,  # bits per byte that are of no consequence
    'validation': 16,  # excerpts of `length` tokens
    'test': 16,
  }
  return common.sized(config, SIZES)
