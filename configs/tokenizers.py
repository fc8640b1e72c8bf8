# SPDX-License-Identifier: Apache-2.0
"""Tokenizers side by side: your own files, SuperBPE (2503.13423), BoundlessBPE (2504.00178).

Claim: tokens that may cross spaces make text a third shorter than BPE within words does, and
shorter than any tokenizer within words can.

Cost: smoke under a minute, cpu at most 5 minutes a table on two cores, and 15 for `quality`.

  python -m experiments.tokenizers --config=tokenizers:cpu --workdir=runs/tokenizers

Tokenizers and texts of your own, a text in each file or folder of DIR:

  python -m experiments.tokenizers --config=tokenizers:cpu,tables=compare --workdir=runs/mine \
    --config.compare.tokenizers="('mine.json', 'other.model')" --config.compare.texts=DIR
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import MODEL, TRAINING
from configs.fields import Field, Scaled

TABLES = ('compression', 'transition', 'compare', 'parity', 'lib', 'quality')
KIN = ('bpe', 'bpe_unsplit', 'superbpe', 'boundless')
# Set by the tokens of an example and by the FLOPs.
BY_TOKENS = ('length', 'batch_size', 'steps', 'evaluate_every', 'lanes')
TEXTS = ('stdlib/prose', 'stdlib/source')
SIZES = (1024, 2048, 4096, 8192, 16_384, 32_768)
SHARES = (0.0, 0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
FIVE = ('bpe', 'bpe_unsplit', 'superbpe', 'sentencepiece', 'wordpiece')


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  sections = {
    # stdlib: five embedded domains; or a folder with a file or a folder for each category
    'data': {'source': Field('stdlib', size=1)},
    'compression': {
      # sources of text (docs/data.md), measured one after the other
      'texts': Field(Scaled(('stdlib/prose',), TEXTS, TEXTS, TEXTS), size=1),
      # numbers of ids
      'vocab_sizes': Field(
        Scaled((400, 600), SIZES, (*SIZES, 65_536), (*SIZES, 200_000)),
        least=256,
        most=2**24,
        size=2,
      ),
      # most bytes of training text
      'train_bytes': Scaled(60_000, 6_000_000, 1_000_000_000, 10_000_000_000),
      'test_bytes': Scaled(40_000, 1_000_000, 10_000_000, 100_000_000),  # most bytes of test text
    },
    'transition': {
      'texts': Field(('stdlib/prose',), size=1),  # sources of text (docs/data.md)
      # ids of each tokenizer
      'vocab_size': Field(Scaled(500, 16_384, 65_536, 200_000), least=256, most=2**24),
      # shares of the vocabulary that are learned within words
      'shares': Field(Scaled((0.0, 0.5, 1.0), SHARES, SHARES, SHARES), least=0, most=1, size=2),
      # most bytes of training text
      'train_bytes': Scaled(60_000, 6_000_000, 1_000_000_000, 10_000_000_000),
      'test_bytes': Scaled(40_000, 1_000_000, 10_000_000, 100_000_000),  # most bytes of test text
    },
    'compare': {
      # families (docs/tokenizers.md), or files (docs/bring_your_own.md)
      'tokenizers': Field(Scaled(('bpe', 'superbpe'), FIVE, FIVE, FIVE), size=1),
      'texts': '',  # a folder with a file or a folder for each text; empty: data.source
      'parallel': False,  # whether the texts are translations of one another
      # text on which families are trained (docs/data.md); empty: other documents of the texts
      'train_texts': '',
      # ids of the trained families
      'vocab_size': Field(Scaled(400, 8192, 32_768, 65_536), least=256, most=2**24),
      # most bytes of training text, of all texts together
      'train_bytes': Scaled(100_000, 2_000_000, 100_000_000, 2**30),
      # most bytes of a text; without effect if texts are parallel
      'text_bytes': Scaled(10_000, 256_000, 1_000_000, 10_000_000),
      # bootstrap samples of blocks, for standard errors
      'draws': Field(Scaled(20, 100, 200, 200), least=2),
    },
    'parity': {
      'texts': '',  # a folder with a file or a folder for each language: translations of one text
      'train_texts': '',  # such a folder of training text; empty: two thirds of the translations
      # most languages, spread evenly over the sorted names
      'languages': Field(Scaled(4, 30, 60, 60), least=2),
      # ids of each tokenizer
      'vocab_size': Field(Scaled(400, 4096, 32_768, 131_072), least=256, most=2**24),
      # most bytes of training text of each language
      'train_bytes': Scaled(20_000, 256_000, 10_000_000, 100_000_000),
      # bootstrap samples of lines, for standard errors
      'draws': Field(Scaled(20, 100, 200, 200), least=2),
    },
    'lib': {
      'text': Field('stdlib/prose', size=1),  # source of the text (docs/data.md)
      # most ids of the other tokenizers; the size of LiB results from training
      'vocab_size': Field(Scaled(800, 50_000, 50_000, 50_000), least=256, most=2**24),
      'passes': Scaled(2, 8, 20, 10_000),  # passes of LiB over the text
      # sentences of a passage; after each passage units are moved
      'sentences': Scaled(50, 200, 500, 500),
      'life': Scaled(3, 3, 10, 10),  # passages within which a new unit must occur again
      # share of the lexicon that is on probation again after a passage
      'forget': Field(Scaled(0.01, 0.01, 1e-4, 1e-4), least=0, most=1),
      'seeds': Field(3, least=2, most=1000),  # number of seeds of LiB
      # most bytes of training text
      'train_bytes': Scaled(40_000, 1_000_000, 100_000_000, 100_000_000),
      'test_bytes': Scaled(20_000, 400_000, 10_000_000, 10_000_000),  # most bytes of test text
    },
    'quality': {field: one for field, one in (MODEL | TRAINING).items() if field not in BY_TOKENS}
    | {
      # families (docs/tokenizers.md), or files
      'tokenizers': Field(Scaled(('bpe', 'superbpe'), KIN, KIN, KIN), size=1),
      # source of the text (docs/data.md)
      'source': Field(Scaled('stdlib/prose', 'stdlib', 'ngram:stdlib', 'tfds:c4/en'), size=1),
      # ids of the trained families
      'vocab_size': Field(Scaled(600, 4096, 65_536, 200_000), least=256, most=2**24),
      # share of the ids of SuperBPE that are learned within words; that of the published models
      'transition': Field(0.9, least=0, most=1),
      # bytes of text on which tokenizers are trained
      'learn_bytes': Scaled(60_000, 4_000_000, 1_000_000_000, 10_000_000_000),
      # number of seeds: enough for an equivalence test with a margin of 1 %
      'seeds': Scaled(2, 5, 5, 5),
      # seeds that train at once; 1 where a model fills the device
      'side_by_side': Scaled(2, 5, 1, 1),
      'layers': Scaled(1, 2, 8, 32),
      'dim': Scaled(16, 64, 512, 4096),
      'heads': Scaled(2, 4, 8, 32),
      'example_bytes': Scaled(32, 256, 2048, 18_000),  # bytes of context
      'batch_bytes': Scaled(128, 2048, 2**17, 2**22),  # bytes of a training step, approximately
      # training FLOPs of each model, in units of 10^12
      'teraflops': Scaled(4e-5, 0.4, 20_000.0, 1.7e10),
      # bytes of training text that is encoded before training and held in memory as tokens; of a
      # stream it is the sample by which FLOPs are counted
      'train_bytes': Scaled(4_000, 4_000_000, 2**30, 2**30),
      # whether training reads all documents from the source as it goes, not train_bytes of them
      'stream': Scaled(False, False, False, True),
      # bytes of held-out text by which a learning rate is chosen
      'validation_bytes': Scaled(1_000, 32_768, 2**20, 2**22),
      'test_bytes': Scaled(1_000, 131_072, 2**22, 2**24),  # bytes of held-out text that are scored
      'optimizer': Scaled('adamw', 'muon', 'muon', 'adamw'),
      'rates': Scaled((3e-3,), (1e-2, 3e-2, 9e-2), (5e-3,), (3e-4,)),
      'weight_decay': 0.1,
    },
  }
  return common.build(arg, TABLES, sections)
