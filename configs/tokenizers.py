# SPDX-License-Identifier: Apache-2.0
"""Tokenizers side by side: your own files, SuperBPE (2503.13423), BoundlessBPE (2504.00178).

Claim: tokens that may cross spaces make text a third shorter than BPE within words does, and
shorter than any tokenizer within words can.

Cost: smoke under a minute, cpu at most 5 minutes a table on two cores.

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
      # sources of text (docs/data.md), one after the other
      'texts': Field(Scaled(('stdlib/prose',), TEXTS, TEXTS, TEXTS), size=1),
      'vocab_sizes': Field(
        Scaled((400, 600), SIZES, (*SIZES, 65_536), (*SIZES, 200_000)), least=256, size=2
      ),
      'train_bytes': Scaled(60_000, 6_000_000, 1_000_000_000, 10_000_000_000),  # at most
      'test_bytes': Scaled(40_000, 1_000_000, 10_000_000, 100_000_000),  # at most
    },
    'transition': {
      'texts': Field(('stdlib/prose',), size=1),
      'vocab_size': Field(Scaled(500, 16_384, 65_536, 200_000), least=256, most=2**24),
      # of the vocabulary, learned within words
      'shares': Field(Scaled((0.0, 0.5, 1.0), SHARES, SHARES, SHARES), least=0, most=1, size=2),
      'train_bytes': Scaled(60_000, 6_000_000, 1_000_000_000, 10_000_000_000),  # at most
      'test_bytes': Scaled(40_000, 1_000_000, 10_000_000, 100_000_000),  # at most
    },
    'compare': {
      # Families of lib/tokenizers/registry.py, or files (docs/bring_your_own.md).
      'tokenizers': Field(Scaled(('bpe', 'superbpe'), FIVE, FIVE, FIVE), size=1),
      'texts': '',  # a folder with a file or a folder for each text; '': data.source
      'parallel': False,  # the texts are translations of one another
      # Text for the families (docs/data.md); '': other documents of the texts themselves.
      'train_texts': '',
      'vocab_size': Field(
        Scaled(400, 8192, 32_768, 65_536), least=256, most=2**24
      ),  # of the families
      'train_bytes': Scaled(100_000, 2_000_000, 100_000_000, 2**30),  # of all texts, at most
      'text_bytes': Scaled(
        10_000, 256_000, 1_000_000, 10_000_000
      ),  # of a text, at most, unless parallel
      'draws': Field(Scaled(20, 100, 200, 200), least=2),  # of all blocks, for the errors
    },
    'parity': {
      'texts': '',  # a folder with a file or a folder for each language, translations of one text
      'train_texts': '',  # the same for the text to train on; '': two thirds of the translations
      'languages': Field(Scaled(4, 30, 60, 60), least=2),  # at most, spread over the names
      'vocab_size': Field(Scaled(400, 4096, 32_768, 131_072), least=256, most=2**24),
      'train_bytes': Scaled(20_000, 256_000, 10_000_000, 100_000_000),  # of each language, at most
      'draws': Field(Scaled(20, 100, 200, 200), least=2),  # of all lines, for the errors
    },
    'lib': {
      'text': Field('stdlib/prose', size=1),  # a source (docs/data.md)
      # the most ids; the size of LiB is an outcome
      'vocab_size': Field(Scaled(800, 50_000, 50_000, 50_000), least=256, most=2**24),
      'passes': Scaled(2, 8, 20, 10_000),  # of LiB over the text
      'sentences': Scaled(50, 200, 500, 500),  # of a passage, after which units are moved
      'life': Scaled(3, 3, 10, 10),  # passages within which a new unit must occur again
      'forget': Field(Scaled(0.01, 0.01, 1e-4, 1e-4), least=0, most=1),  # share on probation again
      'seeds': Field(3, least=2, most=1000),  # of LiB
      'train_bytes': Scaled(40_000, 1_000_000, 100_000_000, 100_000_000),  # at most
      'test_bytes': Scaled(20_000, 400_000, 10_000_000, 10_000_000),  # at most
    },
    'quality': {field: one for field, one in (MODEL | TRAINING).items() if field not in BY_TOKENS}
    | {
      'tokenizers': Field(Scaled(('bpe', 'superbpe'), KIN, KIN, KIN), size=1),  # families, or files
      'source': Field(Scaled('stdlib/prose', 'stdlib', 'ngram:stdlib', 'tfds:c4/en'), size=1),
      'vocab_size': Field(
        Scaled(600, 4096, 65_536, 200_000), least=256, most=2**24
      ),  # of the families
      'learn_bytes': Scaled(60_000, 4_000_000, 1_000_000_000, 10_000_000_000),  # they learn on
      'seeds': Scaled(2, 5, 5, 5),  # as many as an equivalence within 1 % takes
      'side_by_side': Scaled(2, 5, 1, 1),  # 1 where a model fills the device
      'layers': Scaled(1, 2, 8, 32),
      'dim': Scaled(16, 64, 512, 4096),
      'heads': Scaled(2, 4, 8, 32),
      'example_bytes': Scaled(32, 256, 2048, 18_000),  # of context
      'batch_bytes': Scaled(128, 2048, 2**17, 2**22),  # of a step, about
      'teraflops': Scaled(4e-5, 0.4, 20_000.0, 1.7e10),  # of training, of each model
      'train_bytes': Scaled(4_000, 4_000_000, 2**30, 2**40),  # of text, encoded before training
      'validation_bytes': Scaled(1_000, 32_768, 2**20, 2**22),  # to choose a rate by
      'test_bytes': Scaled(1_000, 131_072, 2**22, 2**24),
      'optimizer': Scaled('adamw', 'muon', 'muon', 'adamw'),
      'rates': Scaled((3e-3,), (7e-3, 2e-2, 6e-2), (5e-3,), (3e-4,)),
      'weight_decay': 0.1,
    },
  }
  return common.build(arg, TABLES, sections)
