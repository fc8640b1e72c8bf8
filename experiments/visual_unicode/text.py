# SPDX-License-Identifier: Apache-2.0
"""Text, the tokenizer learned from its train split, and the pictures of the tokens."""

import functools
import os
import string
from typing import NamedTuple

import grain
import numpy as np
from ml_collections import ConfigDict

from lib import tokenizers
from lib.data import (
  epochs,
  excerpts,
  fonts,
  glyphs,
  look_alikes,
  ngram_text,
  pipeline,
  sources,
)
from lib.data.glyphs import GlyphTable
from lib.errors import InputError
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.strings import token_strings

find_font = functools.cache(fonts.find_font)
strings_of = functools.cache(token_strings)

KINDS = ('unicode', 'restricted', 'bytes')
EACH = 8  # held-out excerpts of one document at most
CHECKED_BYTES = 2**20  # of training text that the tokenizer of a check is learned from at most


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
  open_text(draft(config))


def check_sizes(config: ConfigDict, options: ConfigDict) -> None:
  """Raises InputError for too many epochs, or held-out documents that are all too short."""
  config = draft(config)
  for split in ('validation', 'test'):
    held_out(open_text(config), options, split, 1)
  epochs_read(config, options)


def draft(config: ConfigDict) -> ConfigDict:
  """The config with a tokenizer that is learned fast, from a part of its text."""
  found = ConfigDict(config.to_dict())
  if not found.glyphs.table:  # a given table fits one tokenizer only
    found.tokenizer.train_bytes = min(found.tokenizer.train_bytes, CHECKED_BYTES)
  return found


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
    # A restricted vocabulary is smaller: it is cut from this one.
    return tokenizers.train_unicode(documents, max(vocab_size, 0x10000), longest)
  kept = [others for listed in alike(font, tolerance).values() for others in listed.values()]
  return tokenizers.train_restricted(documents, vocab_size, longest, always=''.join(kept))


@functools.cache
def alike(font: str, tolerance: float) -> dict[str, dict[str, str]]:
  """Look-alikes of the Latin letters, by list; every vocabulary keeps them, for `homoglyphs`.

  `pixels` is of letters that the font draws alike, `confusables` Unicode's list of letters that
  readers confuse, as far as the font has them.
  """
  drawing = find_font(font)
  return {
    'pixels': look_alikes.look_alikes(string.ascii_letters, drawing, 32, tolerance),
    'confusables': look_alikes.confusables(string.ascii_letters, drawing),
  }


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


class HeldOut(NamedTuple):
  """Held-out excerpts of one length as batches of rows.

  Attributes:
    batches: rows [B, T]; the last batch is filled up with padding.
    documents: [N], the document of each excerpt.
    bytes: float64 [N], the number that the targets of each excerpt cover.
    starts: int64 [N], bytes of the document before the first target; None if the excerpts were
      changed since.
  """

  batches: list[dict[str, np.ndarray]]
  documents: np.ndarray
  bytes: np.ndarray
  starts: np.ndarray | None = None


def held_out(text: Text, options: ConfigDict, split: str, count: int) -> HeldOut:
  """`count` excerpts of a split, or fewer where it has no more, at most `EACH` of a document.

  An excerpt has `options.length` targets. Its first input is the token before them, as in a
  training row that continues a document.

  Raises:
    InputError: no document of the split is long enough.
  """

  def columns(document: bytes) -> np.ndarray:
    """Ids, the bytes that each covers, and the bytes before it, int64 [n, 3]."""
    ids, covered = text.tokenizer.cover(document)
    return np.stack((ids, covered, np.cumsum(covered, dtype=np.int64) - covered), axis=1)

  found = excerpts.take(
    sources.open_source(text.source, split),
    length=options.length + 1,
    count=count,
    most=EACH,
    prepare=columns,
    name=f'{text.source} ({split}, in tokens)',
  )
  cut = np.stack(found.texts)
  ids, covered = cut[..., 0].astype(np.int32), cut[..., 1].astype(np.int32)
  ones = np.ones_like(ids[:, 1:])
  rows = {
    'targets': ids[:, 1:],
    'inputs': ids[:, :-1],
    'bytes': covered[:, 1:],
    'segments': ones,
    'positions': np.cumsum(ones, axis=1, dtype=np.int32) - 1,
  }
  size = options.batch_size
  padding = [(0, -len(ids) % size), (0, 0)]
  filled = {field: np.pad(values, padding) for field, values in rows.items()}
  batches = [
    {field: values[start : start + size] for field, values in filled.items()}
    for start in range(0, len(ids), size)
  ]
  size_in_bytes = rows['bytes'].sum(axis=1).astype(np.float64)
  return HeldOut(batches, found.documents, size_in_bytes, cut[:, 1, 2])


def epochs_read(config: ConfigDict, options: ConfigDict) -> str:
  """How often a training run of a section reads its text, in words; '' for endless text.

  Raises:
    InputError: more than four epochs at a large scale, or test documents that are all too short.
  """
  if config.data.source.startswith(ngram_text.PREFIX):
    return ''
  opened = open_text(config)
  found = held_out(opened, options, 'test', options.test)
  bytes_per_token = found.bytes.sum() / (len(found.bytes) * options.length)
  read = options.steps * options.batch_size * options.length * bytes_per_token
  return epochs.check('data.source', config.data.source, read, config.scale)
