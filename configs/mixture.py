# SPDX-License-Identifier: Apache-2.0
"""Data Mixture Inference: What do BPE Tokenizers Reveal about their Training Data? (2407.16607).

Claim: the ordered merges of a BPE tokenizer reveal the share of each category (languages,
programming languages, domains) in its training text: log10 of the mean squared error of five
shares is near −7 for languages and −3.4 for domains, where a random guess has −1.4.

Expected: on five embedded domains, an order of magnitude below a random guess; the sample of each
category, not the number of merges, is the limit.
Cost: smoke under a minute, cpu at most 5 minutes a table on two cores. No table uses a device.

  python -m experiments.mixture --config=mixture:cpu --workdir=runs/mixture
"""

from ml_collections import ConfigDict

from configs import common
from configs.fields import Field, Scaled

TABLES = ('exact', 'domains', 'languages', 'off_the_shelf')


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  mixtures = {
    'mixtures': Field(Scaled(3, 16, 20, 100), least=3),  # tokenizers, each with its own shares
    'train_bytes': Scaled(60_000, 1_000_000, 100_000_000, 10_000_000_000),  # most bytes of text
    # most bytes of the sample of each category; columns without a size use the largest
    'sample_bytes': Field(
      Scaled(
        (20_000, 60_000),
        (50_000, 150_000, 500_000),
        (1_000_000, 10_000_000),
        (100_000_000, 1_000_000_000),
      ),
      size=1,
    ),
    # numbers of first merges that the attack uses; tokenizers learn the largest number
    'merges': Field(
      Scaled((20, 60), (30, 100, 300, 1000), (300, 1000, 3000), (3000, 30_000)), size=2
    ),
    'interval_merges': Scaled(60, 300, 1000, 3000),  # merges that intervals are computed from
    # tokenizers trained on the estimated mixture, whose attacks give intervals and the p-value
    'trials': Field(Scaled(3, 19, 39, 39), least=2),
    # tokenizers that the attacker trains for a baseline, which predicts shares from tokens per byte
    'own_tokenizers': Scaled(8, 24, 50, 100),
  }
  sections = {
    'data': {
      # stdlib (five embedded domains), or a folder with a file or a folder for each category
      'source': Field('stdlib', size=1)
    },
    'tokenizer': {  # the tokenizer that is attacked, in all tables but off_the_shelf
      'family': Field('bpe', choices=('bpe',)),  # family of the tokenizer
      'rule': Field('words', size=1),  # its pretokenizer (docs/concepts.md)
    },
    'exact': {
      'train_bytes': Scaled(30_000, 200_000, 200_000, 200_000),  # bytes of training text
      'merges': Scaled(40, 200, 200, 200),  # merges that the tokenizer learns
      'full_merges': Scaled(10, 60, 60, 60),  # merges in the linear program with all its rows
    },
    'domains': mixtures,
    'languages': mixtures
    | {
      'mixtures': Field(Scaled(3, 6, 20, 100), least=3),
      'texts': '',  # a folder with a file or a folder for each language
    },
    'off_the_shelf': {
      'tokenizer': '',  # a file: ours, a tokenizer.json, or a SentencePiece BPE model
      'texts': '',  # a folder with a file or a folder for each category
      # bytes of the sample of each category
      'sample_bytes': Scaled(60_000, 1_000_000, 100_000_000, 1_000_000_000),
      'merges': Scaled(60, 300, 3000, 30_000),  # number of first merges that are used
      # whether the tokenizer was trained on lines; auto: judged by its tokens
      'lines': Field('auto', choices=('auto', 'yes', 'no')),
      'trials': Field(Scaled(3, 19, 39, 39), least=2),  # number of tokenizers, as in domains
    },
  }
  return common.build(arg, TABLES, sections)
