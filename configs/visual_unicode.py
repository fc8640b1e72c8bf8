# SPDX-License-Identifier: Apache-2.0
"""Emergent Semantics Beyond Token Embeddings (A. Bochkov; arXiv 2507.04886).

Claim: a language model needs no trained input embeddings: over frozen vectors made of the pixels of
Unicode glyphs a decoder trains as well and, according to the paper, reasons better.

Expected: frozen rows of every kind train, but end above trained rows by more than the margin of
0.05 bits per byte. Glyphs do no better there than random frozen rows, and worse than they do on
scripts that were never read. They help against look-alikes, and as initial values of trained rows.
The published gap on multiple choice comes from the answer format.
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

# The paper does not state optimizer, rates and steps: these are assumptions.
TRAINED = common.TRAINED | {
  'optimizer': Scaled('adamw', 'muon', 'adamw', 'adamw'),
  'weight_decay': 0.1,  # weight decay of kernels in the decoder
}
RATES = Scaled((3e-3,), (2e-2, 5e-2, 1.2e-1), (3e-4, 1e-3, 3e-3), (1e-4, 3e-4, 1e-3))
# The models of `loss`, `reasoning` and `growth` have one size at `gpu` and `paper`.

LARGE = TRAINED | {'heads': Scaled(2, 4, 32, 32), 'rates': RATES}


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  sections = {
    # folder that keeps the training text as tokens for later epochs and runs; '': none
    'token_cache': '',
    'data': {
      # source of the text (docs/data.md); documents at `gpu` are longer than a row
      'source': Field(
        Scaled(*('stdlib/prose',) * 2, 'ngram:stdlib,length=16384', 'tfds:wiki40b/en'), size=1
      )
    },
    'glyphs': {
      # auto (GNU Unifont if it is installed, else DejaVu), or a font file
      'font': Scaled('dejavu', 'auto', 'auto', 'auto'),
      'cell': Scaled(16, 32, 32, 32),  # pixels along an edge of a glyph
      # how several characters fit into one cell: columns are left out (squeeze) or averaged (area)
      'composition': Field('squeeze', choices=('squeeze', 'area')),
      # how tokens are written before they are drawn
      'alphabet': Field('text', choices=('text', 'byte_level')),
      'table': '',  # file of a glyph table from experiments.tools.glyphs; empty: glyphs are drawn
    },
    'tokenizer': {
      # restricted, unicode, bytes, or a tokenizer file
      'kind': Scaled('restricted', 'restricted', 'unicode', 'unicode'),
      # ids of the tokenizer. On two cores an LM head of 65,536 ids would take 99 % of the time, and
      # most of these ids never occur in English text. The vocabulary of `cpu` has the bytes, the
      # most frequent characters and n-grams, and the look-alikes of Latin letters.
      'vocab_size': Field(Scaled(640, 1024, 65_536, 65_536), most=2**24),
      # most characters of an n-gram; the paper has 3, and `neighbours` needs whole words
      'longest': Scaled(3, 6, 6, 3),
      # bytes of the train split from which n-grams are learned
      'train_bytes': Scaled(200_000, 4_000_000, 50_000_000, 500_000_000),
    },
    'loss': LARGE
    | {
      # kinds of input rows (experiments/visual_unicode/models.py)
      'arms': Field(Scaled(('trainable_0.02', 'glyph'), ALL, (*ALL, *WIDE), (*ALL, *WIDE)), size=1),
      # arms that the others are compared with: trained rows, trained rows from other starts, and
      # rows without form or text
      'references': (*SCALES_OF_TRAINED, *STARTS[1:], 'random', 'shuffled', 'equal'),
      'margin': Field(0.05, least=0),  # bits per byte below which a difference counts as equivalent
      'seeds': Scaled(2, 5, 5, 5),
      'side_by_side': Scaled(2, 5, 1, 1),
      'layers': Scaled(1, 2, 16, 16),
      'dim': Scaled(16, 64, 1024, 1024),
      'batch_size': Scaled(4, 8, 32, 512),
      'length': Scaled(32, 128, 1024, 1024),
      'steps': Scaled(6, 200, 100, 18_000),  # training steps
      'evaluate_every': Scaled(3, 40, 25, 1000),
      'checkpoint_every': Scaled(100, 1000, 1000, 1000),
      'validation': Scaled(8, 64, 512, 8192),  # validation excerpts of `length` tokens
      'test': Scaled(64, 512, 2048, 32_768),  # test excerpts that are scored
    },
    'homoglyphs': {
      # pixels in which a look-alike may differ, as a share of the letter's ink
      'tolerance': Field(0.05, least=0, most=1),
      # shares of letters that are replaced, among letters that have look-alikes
      'rates': Field((0.1, 0.3, 1.0), above=0, most=1, size=1),
      # arms of `loss` that are tested
      'arms': Scaled(('glyph', 'trainable_0.02'), READERS, READERS, READERS),
      'byte_arms': ('trainable_0.02',),  # arms that are trained as in `loss`, but over bytes
      'reference': 'glyph',  # arm that the others are compared with
      'texts': Scaled(16, 256, 2048, 2048),  # number of passages of the test split
      # characters of a passage, few enough to fit into a row after replacement
      'chars': Scaled(16, 64, 512, 512),
    },
    'unseen_script': TRAINED
    | {
      # kinds of input rows, as in loss
      'arms': Field(
        Scaled(('glyph', 'trainable_0.02'), READERS[:3], READERS[:3], READERS[:3]), size=1
      ),
      # scripts in the training text
      'trained': Field(Scaled(('ARMENIAN',), *(('LATIN', 'ARMENIAN', 'GEORGIAN'),) * 3), size=1),
      # scripts in the test text only
      'tested': Field(Scaled(('GEORGIAN',), *(('CYRILLIC', 'GREEK'),) * 3), size=1),
      # share of the trained scripts' letters that only test text has
      'held_out': Field(0.2, above=0, below=1),
      # share of these letters by which the rate is chosen
      'validation': Field(0.1, above=0, below=1),
      'references': ('trainable_0.02', 'random'),  # arms that the others are compared with
      # pairs (language, source) of text in other scripts (docs/data.md)
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
      # arms of `loss` whose rows are compared
      'arms': Field(Scaled(('glyph',), *(('glyph', 'trainable_0.02'),) * 3), size=1),
      # number of most frequent tokens, compared by form
      'tokens': Field(Scaled(40, 160, 500, 500), least=2),
      'occurrences': Scaled(1, 5, 20, 20),  # least occurrences of a word whose class is compared
    },
    'reasoning': LARGE
    | {
      # kinds of input rows, as in loss
      'arms': Field(
        Scaled(('trainable_0.02', 'glyph'), *(('trainable_0.02', 'glyph', 'random'),) * 3), size=1
      ),
      'references': ('trainable_0.02', 'random'),  # arms that the others are compared with
      # arms that are also trained on sentences without questions
      'naive_arms': Scaled((), (), ('glyph',), ('glyph',)),
      'seeds': Scaled(2, 5, 5, 5),
      'side_by_side': Scaled(2, 5, 1, 1),
      # number of entities that facts are about
      'entities': Field(Scaled(6, 20, 500, 2000), least=2),
      'attributes': Scaled(2, 2, 4, 4),  # facts about each entity
      'words': Scaled(6, 8, 12, 12),  # possible values of an attribute
      'options': Field(4, least=2),  # options of a question
      # share of facts that training text has in sentences, but not in questions
      'told': Field(0.2, least=0, most=1),
      'unseen': Field(0.2, least=0, most=1),  # share of facts that no training text has
      # share of documents that are questions; the rest are sentences
      'asked': Field(0.5, least=0, most=1),
      'spaced': Field(0.5, least=0, most=1),  # share of questions with a space before the answer
      'validation': 4,  # batches of held-out documents by which the rate is chosen
      # documents of each seed from which tokens are learned
      'sample': Scaled(200, 2000, 50_000, 100_000),
      'vocab_size': Field(Scaled(384, 512, 65_536, 65_536), most=2**24),  # ids of the tokenizer
      'longest': Scaled(8, 8, 5, 3),  # most characters of an n-gram: whole words
      'layers': Scaled(1, 2, 16, 16),
      'dim': Scaled(16, 96, 1024, 1024),
      'length': Scaled(64, 128, 1024, 1024),
      'batch_size': Scaled(4, 16, 32, 512),
      # training steps (in 300, Muon learns to look up an option; AdamW does not in 400)
      'steps': Scaled(4, 320, 1000, 18_000),
      'rates': RATES._replace(cpu=(1e-2, 3e-2, 1e-1)),
      # own questions: a CSV or JSON file, or tfds:ai2_arc/ARC-Challenge (docs/data.md)
      'questions': '',
      'split': 'test',  # split of a TFDS set of questions
      'limit': Field(0, least=0),  # most own questions; 0: all
      # whether options are in one line or in lines of their own
      'layout': Field('inline', choices=('inline', 'lines')),
      'context': 1024,  # most tokens of a prompt; longer prompts lose their beginning
      'ask_batch': 64,  # questions that are scored in one batch
    },
    'growth': LARGE
    | {
      # kinds of input rows, as in loss
      'arms': Field(('glyph',), size=1),
      'experts': Field(2, least=2),  # models that are joined into one
      'margin': Field(0.05, least=0),  # bits per byte below which a difference counts as equivalent
      'seeds': Scaled(2, 3, 3, 3),
      'side_by_side': Scaled(2, 3, 1, 1),
      'layers': Field(Scaled(2, 4, 6, 6), least=2, most=1000),
      # width of the model; the 4096 of the sequel needs glyphs.cell=64
      'dim': Scaled(16, 64, 1024, 1024),
      'batch_size': Scaled(4, 8, 32, 512),
      'length': Scaled(32, 128, 1024, 1024),
      'steps': Scaled(6, 240, 100, 18_000),
      'validation': Scaled(8, 64, 512, 8192),  # validation excerpts of `length` tokens
      'test': Scaled(16, 512, 2048, 32_768),  # test excerpts that are scored
    },
  }
  return common.build(arg, TABLES, sections)
