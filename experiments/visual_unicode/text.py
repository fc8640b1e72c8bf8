# SPDX-License-Identifier: Apache-2.0
"""Text, the tokenizer learned from its train split, and the pictures of the tokens."""

import functools
import itertools
import os
import string
from typing import NamedTuple

import grain
import numpy as np
from ml_collections import ConfigDict

from lib import tokenizers
from lib.data import fonts, glyphs, look_alikes, pipeline, sources
from lib.data.glyphs import GlyphTable
from lib.errors import InputError
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.strings import token_strings

find_font = functools.cache(fonts.find_font)
strings_of = functools.cache(token_strings)

KINDS = ('unicode', 'restricted', 'bytes')


class Text(NamedTuple):
  """Documents with what reads and draws them.

  Attributes:
    source: what `open_source` takes.
    tokenizer: of V ids.
    glyphs: a picture for each id.
  """

  source: str
  tokenizer: Tokenizer
  glyphs: GlyphTable


def check(config: ConfigDict) -> None:
  """Raises InputError for text, a font, a tokenizer or a glyph table that cannot be had."""
  find_font(config.glyphs.font)
  for split in ('train', 'validation', 'test'):
    sources.open_source(config.data.source, split)
  if config.tokenizer.kind not in KINDS and not os.path.exists(config.tokenizer.kind):
    raise InputError(
      f'tokenizer.kind {config.tokenizer.kind!r} is neither one of {", ".join(KINDS)} nor the '
      'file of a saved tokenizer.'
    )
  open_text(config)


def open_text(config: ConfigDict, kind: str | None = None) -> Text:
  """The text of the config with its tokenizer, or with one of another kind."""
  options = config.tokenizer
  tokenizer = _tokenizer(
    config.data.source, kind or options.kind, options.vocab_size, options.longest,
    options.train_bytes, config.glyphs.font, config.homoglyphs.tolerance,
  )  # fmt: skip
  given = config.glyphs.table and not kind
  pictures = _given(config, tokenizer) if given else draw(config, tokenizer)
  return Text(config.data.source, tokenizer, pictures)


def _given(config: ConfigDict, tokenizer: Tokenizer) -> GlyphTable:
  """The table that the user gives, if it is the one that would be drawn."""
  options = config.glyphs
  tokens = strings_of(tokenizer, options.alphabet)
  font = find_font(options.font)
  due = glyphs.fingerprint(tokens, font, options.cell, options.composition)
  return glyphs.load(options.table, due)


@functools.cache
def _tokenizer(
  source: str, kind: str, vocab_size: int, longest: int, train_bytes: int, font: str,
  tolerance: float,
) -> Tokenizer:  # fmt: skip
  """Learned from the train split alone."""
  if kind == 'bytes':
    return tokenizers.Characters()
  if kind not in KINDS:
    return tokenizers.load(kind)
  documents = sources.sample(sources.open_source(source, 'train'), train_bytes)
  if kind == 'unicode':
    # A restricted vocabulary beside it is smaller: this is then the one that it was cut from.
    return tokenizers.train_unicode(documents, max(vocab_size, 0x10000), longest)
  return tokenizers.train_restricted(
    documents, vocab_size, longest, always=''.join(confusable(font, tolerance).values())
  )


@functools.cache
def confusable(font: str, tolerance: float) -> dict[str, str]:
  """Look-alikes of the Latin letters in a font; kept in every vocabulary, for `homoglyphs`."""
  return look_alikes.look_alikes(string.ascii_letters, find_font(font), 32, tolerance)


def draw(config: ConfigDict, tokenizer: Tokenizer, font: str | None = None) -> GlyphTable:
  """Pictures of a tokenizer's tokens, drawn once, in the config's font or in another."""
  options = config.glyphs
  return _draw(tokenizer, font or options.font, options.cell, options.composition, options.alphabet)


@functools.cache
def _draw(
  tokenizer: Tokenizer, font: str, cell: int, composition: str, alphabet: str
) -> GlyphTable:
  tokens = strings_of(tokenizer, alphabet)
  return glyphs.render(tokens, find_font(font), cell, composition)


def batches(text: Text, options: ConfigDict, seed: int) -> grain.IterDataset:
  """Training batches: documents end to end in rows of one length."""
  return pipeline.batches(
    sources.open_source(text.source, 'train'),
    text.tokenizer,
    batch_size=options.batch_size,
    length=options.length,
    seed=seed,
  )


def held_out(
  text: Text, options: ConfigDict, split: str, count: int
) -> list[dict[str, np.ndarray]]:
  """The first `count` batches of a split, its documents in a fixed random order."""
  found = pipeline.batches(
    sources.open_source(text.source, split),
    text.tokenizer,
    batch_size=options.batch_size,
    length=options.length,
    seed=0,
    repeat=False,
  )
  return list(itertools.islice(iter(found), count))
