# SPDX-License-Identifier: Apache-2.0
"""Text, the tokenizer learned from its train split, and the pictures of the tokens."""

import functools
import os
import string
from typing import NamedTuple

import grain
from ml_collections import ConfigDict

from experiments.recipe import naming
from lib import tokenizers
from lib.data import epochs, pipeline, sources, token_cache, token_excerpts
from lib.data.ngram_text import PREFIX
from lib.data.sources import Source
from lib.data.token_cache import TokenCache
from lib.data.token_excerpts import HeldOut
from lib.errors import InputError
from lib.glyphs import fonts, look_alikes, rendering
from lib.glyphs.rendering import GlyphTable
from lib.report.results import Rows
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.characters import Characters
from lib.tokenizers.restricted import train_restricted
from lib.tokenizers.strings import token_strings
from lib.tokenizers.unicode import train_unicode

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
    token_cache: folder that keeps tokens of training documents, or ''.
  """

  source: str
  tokenizer: Tokenizer
  glyphs: GlyphTable
  token_cache: str = ''

  @property
  def documents(self) -> Source | TokenCache:
    """Of training, as tokens if there is a cache of them."""
    return token_cache.open_tokens(self.token_cache, self.source, self.tokenizer)

  def batches(self, options: ConfigDict, seed: int) -> grain.IterDataset:
    """Training batches: documents end to end in rows of one length."""
    return pipeline.batches(
      self.documents,
      self.tokenizer,
      batch_size=options.batch_size,
      length=options.length,
      seed=seed,
      lanes=options.lanes,
    )

  def held_out(self, options: ConfigDict, split: str, count: int = 0) -> HeldOut:
    """Excerpts of a split: the section's number of them, or `count`, at most EACH of a document.

    Raises:
      InputError: no document of the split is long enough.
    """
    return token_excerpts.cut(
      sources.open_source(self.source, split),
      self.tokenizer,
      length=options.length,
      count=count or options[split],
      batch_size=options.batch_size,
      most=EACH,
      name=f'{self.source} ({split})',
    )


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
    open_text(config).held_out(options, split, 1)
  epochs_read(config, options)


def draft(config: ConfigDict) -> ConfigDict:
  """The config with a tokenizer that is learned fast, from a part of its text."""
  found = ConfigDict(config.to_dict())
  if not found.glyphs.table:  # a given table fits one tokenizer only
    found.tokenizer.train_bytes = min(found.tokenizer.train_bytes, CHECKED_BYTES)
  return found


def open_text(config: ConfigDict, kind: str = '') -> Text:
  """The text of the config with its tokenizer, or with one of another kind."""
  options = config.tokenizer
  with naming('tokenizer'):
    tokenizer = _tokenizer(
      config.data.source,
      kind or options.kind,
      options.vocab_size,
      options.longest,
      options.train_bytes,
      config.glyphs.font,
      config.homoglyphs.tolerance,
    )
  if not config.glyphs.table or kind:
    glyphs = render_tokens(config, tokenizer)
    return Text(config.data.source, tokenizer, glyphs, config.token_cache)
  tokens, font = strings_of(tokenizer, config.glyphs.alphabet), find_font(config.glyphs.font)
  due = rendering.fingerprint(tokens, font, config.glyphs.cell, config.glyphs.composition)
  glyphs = rendering.load(config.glyphs.table, due)
  return Text(config.data.source, tokenizer, glyphs, config.token_cache)


def rows(config: ConfigDict, table: str) -> Rows:
  """The rows of a table over the config's tokenizer, marked if it is lossy."""
  lossy = not open_text(config).tokenizer.lossless
  return Rows(table, lambda where: lossy)


@functools.cache
def _tokenizer(
  source: str, kind: str, vocab_size: int, longest: int, train_bytes: int, font: str,
  tolerance: float,
) -> Tokenizer:  # fmt: skip
  """Learned from the train split alone."""
  if kind == 'bytes':
    return Characters()
  if kind not in KINDS:
    return tokenizers.load(kind)
  documents = sources.sample(sources.open_source(source, 'train'), train_bytes)
  if kind == 'unicode':
    # A restricted vocabulary is smaller: it is cut from this one.
    return train_unicode(documents, max(vocab_size, 0x10000), longest)
  kept = [others for listed in alike(font, tolerance).values() for others in listed.values()]
  return train_restricted(documents, vocab_size, longest, always=''.join(kept))


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


def render_tokens(config: ConfigDict, tokenizer: Tokenizer, font: str = '') -> GlyphTable:
  """Pictures of a tokenizer's tokens, drawn once, in the config's font or in another."""
  options = config.glyphs
  return _draw(tokenizer, font or options.font, options.cell, options.composition, options.alphabet)


@functools.cache
def _draw(
  tokenizer: Tokenizer, font: str, cell: int, composition: str, alphabet: str
) -> GlyphTable:
  return rendering.render(strings_of(tokenizer, alphabet), find_font(font), cell, composition)


def epochs_read(config: ConfigDict, options: ConfigDict) -> str:
  """How often a training run of a section reads its text, in words; '' for endless text.

  Raises:
    InputError: more than four epochs at a large scale, or test documents that are all too short.
  """
  if config.data.source.startswith(PREFIX):
    return ''
  found = open_text(config).held_out(options, 'test')
  bytes_per_token = found.bytes.sum() / (len(found.bytes) * options.length)
  read = options.steps * options.batch_size * options.length * bytes_per_token
  return epochs.check('data.source', config.data.source, read, config.scale)
