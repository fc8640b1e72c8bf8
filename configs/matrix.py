# SPDX-License-Identifier: Apache-2.0
"""Every tokenizer under every embedding, on the same bytes.

Claim: any tokenizer runs under any embedding, and bits per byte, FLOPs per byte and bytes per token
compare them, at equal bytes of context and equal FLOPs of training (experiments/matrix/reading.py
has the definitions). Among the cells are some that no paper known to us measured: lexinvariant rows
over compressed text, glyphs over subwords.

Expected: no number is published. Codecs that know the probabilities of a Markov source are above
its entropy rate, because windows forget context and reserve probability for other bytes.
Cost: cpu is sized for at most 25 minutes on two quiet cores.

  python -m experiments.matrix --config=matrix:cpu --workdir=runs/matrix
"""

from ml_collections import ConfigDict

from configs import common
from configs.common import M1, MODEL, TRAINING
from configs.fields import Field, Scaled
from configs.markov import SOURCE

TABLES = ('grid', 'budget', 'markov')  # grid has the rows of tables tokenizers and untried too

DICTIONARIES = (
  'bytes', 'characters', 'blocks', 'bpe', 'lzw', 'sentencepiece', 'wordpiece', 'unicode',
)  # fmt: skip
# The tokens of a cell and `teraflops` say what these are.
BY_TOKENS = ('length', 'batch_size', 'lanes', 'steps', 'evaluate_every')
DECODERS = ('transformer', 'hierarchy', 'recurrent')
EMBEDDINGS = ('learned', 'lexinvariant', 'glyph', 'random', 'code')


def get_config(arg: str = 'cpu') -> ConfigDict:
  """The config of 'SCALE' or 'SCALE,tables=A+B'."""
  full = (*DICTIONARIES, 'numbered16', 'exact16')
  few, orders = ('bytes', 'bpe', 'numbered16'), (1, 2, 3)
  sections = {
    'data': {
      # source of the text (docs/data.md)
      'source': Field(Scaled('stdlib/prose', 'stdlib', 'ngram:stdlib', 'tfds:c4/en'), size=1)
    },
    'glyphs': {  # as in the recipe visual_unicode
      # auto (GNU Unifont if it is installed, else DejaVu), or a font file
      'font': Scaled('dejavu', 'auto', 'auto', 'auto'),
      'cell': Scaled(16, 32, 32, 32),  # pixels along an edge of a glyph
    },
    'm1': M1
    | {
      'layers': Scaled(1, 1, 3, 3),
      'dim': Scaled(16, 64, 256, 256),
      'heads': Scaled(2, 4, 4, 4),
      'mlp_dim': Scaled(32, 256, 1024, 1024),
      'length': Scaled(16, 32, 1024, 1024),
      'streams': Scaled(8, 16, 256, 256),
      'position': Scaled('t5', 't5', 'relative', 'relative'),
      'steps': Scaled(4, 500, 20_000, 2_500_000),
      'batch_size': Scaled(8, 32, 128, 128),
      'optimizer': Scaled('muon', 'muon', 'muon', 'adafactor'),
      'schedule': Scaled('cosine', 'cosine', 'cosine', 'rsqrt'),
      'rates': Scaled((2e-2,), (2e-2,), (5e-3,), (1e-2,)),
      'warmup': Scaled(0.25, 0.04, 0.025, 0.004),
      'evaluate_every': Scaled(4, 250, 1000, 10_000),
      'checkpoint_every': Scaled(4, 250, 1000, 10_000),
      'validation_batches': Scaled(1, 8, 20, 20),  # batches of validation text in each evaluation
    },
    'tokenizers': {
      # ids of trained dictionaries; on two cores an LM head of 65,536 ids would take nearly all the
      # time
      'vocab_size': Field(Scaled(768, 4096, 65_536, 65_536), most=2**24),
      # most bits of a token of the neural codecs
      'token_bits': Field(Scaled(12, 12, 16, 16), choices=(8, 12, 16)),
      # bytes of the train split that tokenizers are trained on
      'train_bytes': Scaled(100_000, 2**21, 2**26, 2**30),
    },
    # Names of tokenizers and embeddings: experiments/matrix/tokens.py and embeddings.py.
    'grid': MODEL
    | {field: value for field, value in TRAINING.items() if field not in BY_TOKENS}
    | {
      # names of tokenizers (experiments/matrix/tokens.py), or files
      'tokenizers': Field(
        Scaled(('bpe', 'numbered12'), (*DICTIONARIES, 'numbered12'), full, full), size=1
      ),
      # names of embeddings (experiments/matrix/embeddings.py)
      'embeddings': Field(
        Scaled(('learned', 'glyph'), EMBEDDINGS, EMBEDDINGS, EMBEDDINGS), choices=EMBEDDINGS, size=1
      ),
      # decoder of every cell: the transformer of the fields below, the same over chunks of tokens
      # (section hierarchy), or as many recurrent layers
      'decoder': Field('transformer', choices=DECODERS),
      'seeds': Scaled(2, 3, 3, 3),
      # seeds that train at once; 1 where a model fills the device
      'side_by_side': Scaled(2, 3, 1, 1),
      'layers': Scaled(1, 2, 8, 24),
      'dim': Scaled(16, 64, 512, 1024),
      'heads': Scaled(2, 4, 8, 16),
      # bytes of an example; text is cut into examples, each a document
      'example_bytes': Scaled(32, 128, 2048, 8192),
      'batch_bytes': Scaled(128, 1024, 2**17, 2**20),  # bytes of a training step, approximately
      # training FLOPs of each model, in units of 10^12
      'teraflops': Scaled(4e-5, 0.07, 20_000.0, 2e6),
      # bytes of training text, which is encoded before training
      'train_bytes': Scaled(4_000, 400_000, 2**28, 2**32),
      # bytes of held-out text by which a learning rate is chosen
      'validation_bytes': Scaled(1_000, 32_768, 2**20, 2**22),
      'test_bytes': Scaled(1_000, 65_536, 2**22, 2**24),  # bytes of held-out text that are scored
      'optimizer': Scaled('adamw', 'muon', 'muon', 'adamw'),
      # peak learning rates; the best on validation text is used, or one beyond them while an end is
      # best, since tokenizers and embeddings
      # need different rates
      'rates': Scaled((3e-3,), (7e-3, 2e-2, 6e-2), (1.7e-3, 5e-3, 1.5e-2), (1e-4, 3e-4, 9e-4)),
      'weight_decay': 0.1,
    },
    'hierarchy': {  # of grid.decoder=hierarchy, whose networks over tokens have the width grid.dim
      # layers of these networks
      'kind': Field('recurrence', choices=('recurrence', 'convolution')),
      'layers': Scaled(1, 2, 4, 4),  # number of layers of each network
      # where chunks begin: learned (H-Net), or after a fixed number of tokens (stride)
      'router': Field('learned', choices=('learned', 'stride')),
      # tokens per chunk: of stride, or what a learned router is trained to
      'chunk': Field(3, least=2),
      'room': Field(0.5, above=0, most=1),  # most chunks of a row, as a share of its tokens
      'ratio_weight': Field(0.03, least=0),  # weight of the ratio loss
    },
    'budget': {  # trained rows and a larger budget; all other fields as in grid
      # names of tokenizers, as in grid
      'tokenizers': Field(
        Scaled(('bytes', 'bpe'), ('bytes', 'bpe', 'numbered12'), few, few), size=1
      ),
      'times': Scaled(2.0, 30.0, 2.0, 4.0),  # budget, as a multiple of grid.teraflops
      # bytes of training text, which is encoded before training
      'train_bytes': Scaled(8_000, 8_000_000, 2**29, 2**34),
    },
    'orders': Field(Scaled((2,), orders, orders, orders), size=1),  # orders k of the Markov chains
    'source': SOURCE,  # the Markov chain that generates text
    'markov': {
      # bits of a window, and of the ids of dictionaries
      'bits': Field(Scaled((12,), (12, 16), (12, 16), (12, 16)), size=1, choices=(12, 16)),
      # characters that BPE and LZW are learned on
      'dictionary_chars': Field(Scaled(40_000, 3_000_000, 20_000_000, 20_000_000), bytes=1),
      # characters that tokens are counted on
      'train_chars': Field(Scaled(40_000, 3_000_000, 20_000_000, 20_000_000), bytes=1),
      # characters that models are scored on
      'test_chars': Field(Scaled(20_000, 1_000_000, 10_000_000, 10_000_000), bytes=1),
      'seeds': Field(Scaled(2, 8, 8, 8), most=1000),  # number of dictionaries and texts
      # characters of a document, for codes without windows
      'document_chars': Field(Scaled(200, 1_000, 10_000, 10_000), bytes=1),
    },
  }
  return common.build(arg, TABLES, sections)
