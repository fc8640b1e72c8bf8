# SPDX-License-Identifier: Apache-2.0
"""Exact Byte-Level Probabilities from Tokenized Language Models (2410.09303, 2506.14123).

Claim: a model of tokens gives an exact law of the next byte, also where a prompt ends inside a
token; conditioning on the tokens of the prompt is biased.

Expected: the exact law of a Markov source to 1e-12, where naive conditioning is off by 0.3 to 0.6
in total variation, and prompts that take back one token by 0.03 to 0.35.
Cost: smoke under a minute, cpu at most 5 minutes a table on two cores.

  python -m experiments.byte_exact --config=byte_exact:cpu --workdir=runs/byte_exact
"""

from ml_collections import ConfigDict

from configs import common
from configs.fields import Field, Scaled

TABLES = ('bias',)

SECTIONS = {
  'bias': {
    # probabilities that a letter is the one before
    'stay': Field(Scaled((0.2,), *((0.2, 0.8),) * 3), size=1, least=0.01, most=0.99),
    'vocab': Field(Scaled((4, 8), *((4, 8, 16, 32, 64),) * 3), size=1, least=2),  # tokens
    'letters': Field(Scaled(5, 10, 12, 12), least=1, most=14),  # of a text, all are enumerated
    'chars': Scaled(2_000, *(100_000,) * 3),  # from which tokens are learned
  },
}


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  return common.build(arg, TABLES, SECTIONS)
