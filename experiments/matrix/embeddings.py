# SPDX-License-Identifier: Apache-2.0
"""The embeddings of the grid by name, around the decoder that the grid names.

  learned        one trained row for each id, for input and LM head
  lexinvariant   random rows for input and LM head, sampled in each step and assigned to the ids
                 at random in each row of the batch; none is trained
  glyph          frozen pictures of the tokens' texts, and a trained LM head
  random         frozen random directions, and a trained LM head
  code           the id in binary, frozen, and a trained LM head

Any tokenizer can be combined with any embedding, with two exceptions: glyphs need tokens with text,
and a code needs enough bits for all ids.
"""

import functools
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from experiments import decoders, fit
from lib.embeddings.fixed import FixedRows
from lib.embeddings.learned import Learned
from lib.embeddings.lexinvariant import Lexinvariant
from lib.glyphs import fonts, pixel_rows, rendering
from lib.models.decoder import LanguageModel
from lib.tokenizers import Tokenizer
from lib.tokenizers.strings import token_strings

EMBEDDINGS = ('learned', 'lexinvariant', 'glyph', 'random', 'code')
CODE_BITS = 16


def check(config: ConfigDict) -> None:
  """Raises InputError for an unknown embedding or a missing font."""
  if 'glyph' in config.grid.embeddings:
    fonts.find_font(config.glyphs.font)


def make(config: ConfigDict, tokenizer: Tokenizer, embedding: str) -> LanguageModel:
  """The model of a cell of the grid.

  Raises:
    InputError: the embedding has no rows for these tokens; the sentence gives the reason.
  """
  rows = _embedding(config, tokenizer, embedding, fit.dtype(config))
  return LanguageModel(rows, decoders.make(config, config.grid))


def learned(config: ConfigDict, vocab_size: int) -> LanguageModel:
  """The model of a cell with learned rows."""
  return decoders.with_rows(decoders.make(config, config.grid), vocab_size)


def _embedding(config: ConfigDict, tokenizer: Tokenizer, kind: str, dtype: Any) -> nn.Module:
  size, dim = tokenizer.vocab_size, config.grid.dim
  if kind == 'learned':
    return Learned(size, dim, dtype=dtype)
  if kind == 'lexinvariant':
    return Lexinvariant(size, dim, row_sampling='shared', dtype=dtype)
  if kind == 'random':
    rows = lambda seed: pixel_rows.gaussian_rows(size, dim, seed)
  else:
    if kind == 'glyph':
      fixed = _glyphs(tokenizer, config.glyphs.font, config.glyphs.cell, dim)
    else:
      fixed = pixel_rows.id_code_rows(size, dim, CODE_BITS)
    rows = lambda seed: fixed
  return FixedRows(size, dim, rows, dtype=dtype)


@functools.lru_cache(maxsize=1)
def _glyphs(tokenizer: Tokenizer, font: str, cell: int, dim: int) -> np.ndarray:
  drawn = rendering.render(token_strings(tokenizer), fonts.find_font(font), cell)
  return pixel_rows.glyph_rows(drawn, dim)
