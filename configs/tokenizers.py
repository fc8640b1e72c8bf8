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
from configs.fields import Field, Scaled

TABLES = ('compare',)
FIVE = ('bpe', 'bpe_unsplit', 'superbpe', 'sentencepiece', 'wordpiece')


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  sections = {
    # stdlib: five embedded domains; or a folder with a file or a folder for each category
    'data': {'source': Field('stdlib', size=1)},
    'compare': {
      # Families of lib/tokenizers/registry.py, or files: ours, tokenizer.json, SentencePiece.
      'tokenizers': Field(Scaled(('bpe', 'superbpe'), FIVE, FIVE, FIVE), size=1),
      'texts': '',  # a folder with a file or a folder for each text; '': data.source
      'parallel': False,  # the texts are translations of one another
      # Text for the families (docs/data.md); '': other documents of the texts themselves.
      'train_texts': '',
      'vocab_size': Field(Scaled(400, 8192, 32_768, 65_536), least=256),  # of the families
      'train_bytes': Scaled(100_000, 2_000_000, 100_000_000, 2**30),  # of all texts, at most
      'text_bytes': Scaled(10_000, 256_000, 1_000_000, 10_000_000),  # that are measured, at most
      'draws': Field(Scaled(20, 100, 200, 200), least=2),  # of all blocks, for the errors
    },
  }
  return common.build(arg, TABLES, sections)
