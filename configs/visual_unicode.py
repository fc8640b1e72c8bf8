# SPDX-License-Identifier: Apache-2.0
"""Emergent Semantics Beyond Token Embeddings (A. Bochkov; arXiv 2507.04886).

Claim: a language model needs no trained input embeddings: over frozen vectors made of the pixels of
Unicode glyphs a decoder trains as well, and (so the paper) reasons better.

Expected: frozen rows of every kind train, but end above trained rows by more than the margin of
0.05 bits per byte. Glyphs do no better there than random frozen rows, and worse than they do on
scripts that were never read. They help against look-alikes, and as a start of trained rows. The
published gap on multiple choice is one of format.
Cost: cpu is sized for at most 30 minutes on two quiet cores.

  python -m experiments.visual_unicode --config=visual_unicode:cpu --workdir=runs/visual
"""

from ml_collections import ConfigDict

from configs import common
from configs.fields import Field, Scaled

TABLES = (
  'coverage', 'loss', 'reasoning', 'homoglyphs', 'unseen_script', 'neighbours', 'growth',
)  # fmt: skip

# Rows (experiments/visual_unicode/models.py) of the arms.
SCALES_OF_TRAINED = ('trainable_0.02', 'trainable_1')
FROZEN = ('glyph', 'glyph_rms_1', 'shuffled', 'random', 'code_16', 'code_64')
STARTS = ('trainable_glyph', 'trainable_shuffled', 'trainable_random')  # of one norm
ALL = (*SCALES_OF_TRAINED, *STARTS, 'glyph_deduped', *FROZEN, 'equal')
WIDE = ('glyph_rms_0.02', 'code_256', 'code_1024')  # at larger widths alone
READERS = ('glyph', 'trainable_0.02', 'random', 'trainable_glyph')

# The paper says nothing of optimiser, rates and steps: those here are assumptions.
TRAINED = common.TRAINED | {
  'optimizer': Scaled('adamw', 'muon', 'adamw', 'adamw'),
  'weight_decay': 0.1,  # of kernels in the decoder
}
RATES = Scaled((3e-3,), (2e-2, 5e-2, 1.2e-1), (3e-4, 1e-3, 3e-3), (1e-4, 3e-4, 1e-3))
# The models of `loss`, `reasoning` and `growth` have one size at `gpu` and `paper`.
LARGE = TRAINED | {'heads': Scaled(2, 4, 32, 32), 'rates': RATES}


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  sections = {
    'data': {  # stdlib, a path, a glob, tfds:NAME, ngram:SOURCE (docs/data.md)
      # At `gpu` endless text of a known law; its documents are longer than a row of 1,024 tokens.
      'source': Field(
        Scaled(*('stdlib/prose',) * 2, 'ngram:stdlib,length=16384', 'tfds:wiki40b/en'), size=1
      )
    },
    'glyphs': {
      # auto: GNU Unifont where the system has it, else DejaVu; or a path
      'font': Scaled('dejavu', 'auto', 'auto', 'auto'),
      'cell': Scaled(16, 32, 32, 32),  # pixels along an edge
      'composition': Field('squeeze', choices=('squeeze', 'area')),  # of n-grams
      'alphabet': Field('text', choices=('text', 'byte_level')),
      'table': '',  # a table that experiments.tools.glyphs drew, instead of drawing it
    },
    'tokenizer': {
      # or bytes, or the file of a saved tokenizer
      'kind': Scaled('restricted', 'restricted', 'unicode', 'unicode'),
      # On two cores the LM head of 65,536 rows would take 99 % of the time. Nearly all of these ids
      # never occur in English text: the vocabulary of `cpu` is bytes, the characters and n-grams
      # that occur most, and the look-alikes of Latin letters, cut and drawn as in the whole.
      'vocab_size': Field(Scaled(640, 1024, 65_536, 65_536), most=2**24),
      # characters of an n-gram: the paper's 3, or whole words for `neighbours`
      'longest': Scaled(3, 6, 6, 3),
      # of the train split, to learn n-grams from
      'train_bytes': Scaled(200_000, 4_000_000, 50_000_000, 500_000_000),
    },
    'loss': LARGE
    | {
      # kinds of input rows (experiments/visual_unicode/models.py)
      'arms': Field(Scaled(('trainable_0.02', 'glyph'), ALL, (*ALL, *WIDE), (*ALL, *WIDE)), size=1),
      # What arms are compared with: trained rows, each start, and rows without form or text.
      'references': (*SCALES_OF_TRAINED, *STARTS[1:], 'random', 'shuffled', 'equal'),
      'margin': Field(0.05, least=0),  # bits per byte that are of no consequence
      'seeds': Scaled(2, 5, 5, 5),
      'side_by_side': Scaled(2, 5, 1, 1),
      'layers': Scaled(1, 2, 16, 16),
      'dim': Scaled(16, 64, 1024, 1024),
      'batch_size': Scaled(4, 8, 32, 512),
      'length': Scaled(32, 128, 1024, 1024),
      # In 400 steps at `cpu` Muon came to 2.63 bits per byte of validation text, AdamW to 3.33, and
      # the second rate was the best on validation text for frozen and for trained rows.
      'steps': Scaled(6, 200, 100, 18_000),
      'evaluate_every': Scaled(3, 40, 25, 1000),
      'checkpoint_every': Scaled(100, 1000, 1000, 1000),
      'validation': Scaled(8, 64, 512, 8192),  # excerpts of `length` tokens
      # excerpts that are scored
      'test': Scaled(64, 512, 2048, 32_768),
    },
    'homoglyphs': {
      # pixels of a look-alike that may differ, as a share of the letter's ink
      'tolerance': Field(0.05, least=0, most=1),
      # letters replaced, of those that have look-alikes
      'rates': Field((0.1, 0.3, 1.0), above=0, most=1, size=1),
      # of `loss`, with its tokenizer
      'arms': Scaled(('glyph', 'trainable_0.02'), READERS, READERS, READERS),
      'byte_arms': ('trainable_0.02',),  # trained like `loss`, over bytes
      'reference': 'glyph',  # arm that others are compared with
      'texts': Scaled(16, 256, 2048, 2048),  # passages of the test split
      # of a passage, so short that it stays shorter than a row when attacked
      'chars': Scaled(16, 64, 512, 512),
    },
    'unseen_script': TRAINED
    | {
      # kinds of input rows, as in loss
      'arms': Field(
        Scaled(('glyph', 'trainable_0.02'), READERS[:3], READERS[:3], READERS[:3]), size=1
      ),
      # scripts whose letters are trained on
      'trained': Field(Scaled(('ARMENIAN',), *(('LATIN', 'ARMENIAN', 'GEORGIAN'),) * 3), size=1),
      # scripts that no model has seen
      'tested': Field(Scaled(('GEORGIAN',), *(('CYRILLIC', 'GREEK'),) * 3), size=1),
      'held_out': Field(0.2, above=0, below=1),  # of the trained scripts' letters
      'validation': Field(0.1, above=0, below=1),  # of them, to choose the rate with
      'references': ('trainable_0.02', 'random'),  # arms that the others are compared with
      # (language, source) pairs of other scripts: paths, tfds:wiki40b/ru, …
      'texts': Scaled(
        (), (), *((('russian', 'tfds:wiki40b/ru'), ('greek', 'tfds:wiki40b/el')),) * 2
      ),
      'seeds': Scaled(2, 3, 5, 5),
      'side_by_side': 5,  # seeds that train at once; 1 where a model fills the device
      'layers': Scaled(1, 2, 6, 6),
      'dim': Scaled(16, 64, 512, 512),
      'heads': Scaled(2, 4, 8, 8),
      'length': Scaled(48, 48, 64, 64),
      'batch_size': Scaled(8, 24, 256, 256),
      'steps': Scaled(6, 260, 1000, 1000),
      'rates': RATES._replace(paper=RATES.gpu),
    },
    'neighbours': {
      'arms': Field(Scaled(('glyph',), *(('glyph', 'trainable_0.02'),) * 3), size=1),  # of `loss`
      # the most frequent ones, compared by form
      'tokens': Field(Scaled(40, 160, 500, 500), least=2),
      'occurrences': Scaled(1, 5, 20, 20),  # of a word, at least, to compare its class
    },
    'reasoning': LARGE
    | {
      # kinds of input rows, as in loss
      'arms': Field(
        Scaled(('trainable_0.02', 'glyph'), *(('trainable_0.02', 'glyph', 'random'),) * 3), size=1
      ),
      'references': ('trainable_0.02', 'random'),  # arms that the others are compared with
      'naive_arms': Scaled((), (), ('glyph',), ('glyph',)),  # trained on sentences alone too
      'seeds': Scaled(2, 5, 5, 5),
      'side_by_side': Scaled(2, 5, 1, 1),
      # things that facts are about
      'entities': Field(Scaled(6, 20, 500, 2000), least=2),
      # facts about each
      'attributes': Scaled(2, 2, 4, 4),
      'words': Scaled(6, 8, 12, 12),  # values that an attribute can have
      'options': Field(4, least=2),  # of a question
      'told': Field(0.2, least=0, most=1),  # of the facts: in sentences only
      'unseen': Field(0.2, least=0, most=1),  # of the facts: in no training text
      'asked': Field(0.5, least=0, most=1),  # of the documents: questions; the rest are sentences
      'spaced': Field(0.5, least=0, most=1),  # of these questions: a space precedes the answer
      'validation': 4,  # batches of documents that are not trained on, to choose the rate with
      'sample': Scaled(200, 2000, 50_000, 100_000),  # documents of a seed, to learn tokens from
      # ids of the tokenizer
      'vocab_size': Field(Scaled(384, 512, 65_536, 65_536), most=2**24),
      'longest': Scaled(8, 8, 5, 3),  # characters of an n-gram: words
      'layers': Scaled(1, 2, 16, 16),
      'dim': Scaled(16, 96, 1024, 1024),
      'length': Scaled(64, 128, 1024, 1024),
      'batch_size': Scaled(4, 16, 32, 512),
      # In 300 steps Muon finds how to look up an option, AdamW in 400 not.
      'steps': Scaled(4, 320, 1000, 18_000),
      'rates': RATES._replace(cpu=(1e-2, 3e-2, 1e-1)),
      'questions': '',  # own questions: CSV, JSON, or tfds:ai2_arc/ARC-Challenge (docs/data.md)
      'split': 'test',  # of a TFDS set
      'limit': Field(0, least=0),  # own questions at most; 0: all
      # options after one another, or on lines
      'layout': Field('inline', choices=('inline', 'lines')),
      'context': 1024,  # tokens; longer prompts lose their beginning
      'ask_batch': 64,  # questions a batch
    },
    'growth': LARGE
    | {
      # kinds of input rows, as in loss
      'arms': Field(('glyph',), size=1),
      # models that are grown into one
      'experts': Field(2, least=2),
      'margin': Field(0.05, least=0),  # bits per byte that are of no consequence
      'seeds': Scaled(2, 3, 3, 3),
      'side_by_side': Scaled(2, 3, 1, 1),
      'layers': Field(Scaled(2, 4, 6, 6), least=2, most=1000),
      'dim': Scaled(16, 64, 1024, 1024),  # the sequel's 4096 needs glyphs.cell=64
      'batch_size': Scaled(4, 8, 32, 512),
      'length': Scaled(32, 128, 1024, 1024),
      'steps': Scaled(6, 240, 100, 18_000),
      'validation': Scaled(8, 64, 512, 8192),  # excerpts of `length` tokens
      # excerpts that are scored
      'test': Scaled(16, 512, 2048, 32_768),
    },
  }
  return common.build(arg, TABLES, sections)
