# SPDX-License-Identifier: Apache-2.0
"""New tokenizer, same model: WECHSEL (2112.06598), CW2V (2407.05841), TokenAdapt (2505.09738), OMP
(2506.06607), with FOCUS, mean of parts, ridge regression and Procrustes as rivals.

Claim: rows for the tokens of another tokenizer can be made from those of a trained model, so that
little is lost before any training and less training is needed than from scratch.

Expected: before training, linear maps from a donor are best, then FOCUS and TokenAdapt; the mean of
the parts is no better than the mean of all rows, and random rows are far behind. After 50 steps
most differences are small. With a donor, matching pursuit with 8 atoms is better than with 32.
Cost: smoke under a minute.

  python -m experiments.transplant --config=transplant:cpu --workdir=runs/transplant
"""

from ml_collections import ConfigDict

from configs import common
from configs.fields import Field, Scaled

TABLES = ('transplant', 'noise_anchor', 'languages')
METHODS = (
  'random', 'mean', 'zero', 'gaussian', 'multivariate', 'parts', 'parts_by_length', 'focus',
  'wechsel', 'tokenadapt_local', 'tokenadapt_global', 'tokenadapt', 'hull', 'donor_neighbours',
  'omp8', 'omp32', 'omp_normalised32', 'ridge', 'procrustes',
  'distilled_parts',
)  # fmt: skip
SMOKE = (
  'random',
  'mean',
  'multivariate',
  'parts',
  'focus',
  'wechsel',
  'tokenadapt',
  'omp8',
  'ridge',
)
SHORT = (
  'random', 'mean', 'zero', 'multivariate', 'parts', 'focus', 'wechsel', 'tokenadapt', 'hull',
  'omp32', 'ridge', 'procrustes', 'distilled_parts',
)  # fmt: skip
LONGER = ('random', 'multivariate', 'parts', 'focus', 'tokenadapt', 'omp32', 'ridge')


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  prose, code = 'stdlib/prose', 'stdlib/source'
  sections = {
    'data': {
      # source of the text (docs/data.md)
      'source': Field(Scaled(prose, prose, 'stdlib', 'tfds:c4/en'), size=1)
    },
    'old': {  # the tokenizer of the old model
      'family': 'bpe',  # family of the tokenizer (docs/tokenizers.md)
      # ids of the tokenizer
      'vocab_size': Field(Scaled(300, 1024, 8192, 32_000), least=256, most=2**24),
      # bytes of text on which each tokenizer is trained
      'train_bytes': Scaled(60_000, 2_000_000, 2**26, 2**30),
    },
    'base': common.SMALL  # the model that is transplanted
    | {
      'tied': True,  # whether the LM head shares the input table
      'layers': Scaled(1, 2, 8, 16),
      'dim': Scaled(16, 64, 512, 2048),
      'heads': Scaled(2, 4, 8, 32),
      'length': Scaled(48, 128, 512, 4096),
      'batch_size': Scaled(4, 4, 64, 256),
      'steps': Scaled(4, 400, 4000, 100_000),
      'evaluate_every': Scaled(2, 25, 100, 1000),  # steps between points of a learning curve
    },
    'continued': {  # training of models after a transplant
      # peak learning rate; by default that of `base`
      'rate': Scaled(2e-2, 2e-2, 1e-2, 5e-3),
      # length of the linear warm-up, as a share of the steps
      'warmup': Field(0.1, least=0, most=1),
    },
    'scratch': {
      # numbers of training steps of the models from scratch, apart from base.steps
      'steps': Scaled((2,), (50, 100, 200), (50, 200, 1000), (50, 200, 1000, 10_000)),
    },
    'distillation': {'steps': Scaled(3, 200, 2000, 5000)},  # training of methods distilled_NAME
    'vectors': {  # vectors of tokens, which some methods compare
      'bytes': Scaled(20_000, 300_000, 2**24, 2**28),  # bytes of text that they are computed from
      'dim': Scaled(16, 100, 300, 300),  # width of the vectors
    },
    'held_out': {  # the excerpts that models are scored on
      'length': Scaled(64, 256, 1024, 4096),  # bytes of each excerpt
      'bytes': Scaled(2_000, 48_000, 2**20, 2**23),  # bytes of all excerpts
      # batches of validation text for each point of a learning curve
      'validation_batches': Scaled(1, 8, 20, 20),
    },
    'transplant': {
      # new tokenizers: (label, family, ids, source)
      'new_tokenizers': Field(
        Scaled(
          (('code', 'bpe', 290, code), ('larger', 'bpe', 340, prose)),
          (('code', 'bpe', 1024, code), ('larger', 'bpe', 2048, prose)),
          (('code', 'bpe', 8192, code), ('larger', 'bpe', 32_000, prose),
           ('unigram', 'sentencepiece', 12_000, prose)),
          (('larger', 'bpe', 128_000, 'tfds:c4/en'),),
        ),
        size=1,
      ),
      # names of methods (lib/transplant/methods.py)
      'methods': Field(Scaled(SMOKE, METHODS, METHODS, METHODS), size=1),
      'continued': 'larger',  # label of the new tokenizer whose models are trained further
      'short_steps': Scaled(2, 50, 50, 50),  # steps of the short training
      # methods whose models have the short training
      'short': Scaled(('random', 'parts'), SHORT, SHORT, SHORT),
      'long_steps': Scaled(3, 200, 200, 200),  # steps of the long training
      # methods whose models have the long training
      'long': Scaled((), LONGER, LONGER, LONGER),
    },
    'noise_anchor': {
      # rows of the synthetic embedding spaces
      'rows': Field(Scaled(100, 1024, 8192, 8192), least=50),
      'latent': Scaled(8, 32, 256, 256),  # dimensions of these spaces before noise is added
      # standard deviations of the noise, relative to the signal
      'noise': Field(
        Scaled((0.0, 0.3, 0.5), *((0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0),) * 3),
        size=1,
        least=0,
      ),
      'other': Field(code, size=1),  # source of the text of the donor in rows with `pair=texts`
    },
    'languages': {
      # percentages of the dictionary that are used
      'shares': Field(Scaled((100,), *((10, 50, 100),) * 3), size=1, most=100),
      # methods whose models are trained further
      'continued': Scaled(('random', 'wechsel'), *(('random', 'mean', 'wechsel'),) * 3),
      'steps': Field(Scaled((2,), *((50, 200),) * 3), size=1),  # numbers of their training steps
      # text in the other language (docs/data.md); empty: the old text with its words exchanged
      'texts': '',
      # a file with a word of the old language and a word of the new one in each line
      'dictionary': '',
    },
  }  # fmt: skip
  return common.build(arg, TABLES, sections)
