# SPDX-License-Identifier: Apache-2.0
"""Text folded into a small alphabet (`lib.data.alphabets`), its held-out splits cut again."""

import functools
from collections.abc import Mapping
from typing import NamedTuple, cast

from lib.data import alphabets, description, ngram_text, overlap, own_files, sources
from lib.data.ngram_text import NgramText


class Folded(NamedTuple):
  """A source whose bytes are folded into an alphabet.

  Attributes:
    documents: split -> its documents.
    overlaps: split -> overlap of validation and test with train; empty where nothing was cut.
  """

  documents: Mapping[str, sources.Source]
  overlaps: Mapping[str, overlap.Overlap]


@functools.cache
def open_folded(source: str, alphabet: bytes) -> Folded:
  """A source (as `open_source` takes it) in an alphabet.

  Folding makes equal what differs in case, digits or punctuation alone, so text that was cut
  before (`lib.data.overlap`) overlaps again. TFDS sets keep their own splits, and endless text is
  sampled from the law of the folded text.
  """
  found = {split: sources.open_source(source, split) for split in own_files.SPLITS}
  if source.startswith(ngram_text.PREFIX):
    return Folded({s: cast(NgramText, one).folded(alphabet) for s, one in found.items()}, {})
  documents: dict[str, sources.Source]
  documents = {split: alphabets.Folded(one, alphabet) for split, one in found.items()}
  if source.startswith('tfds:'):
    return Folded(documents, {})
  cuts = overlap.clean(**documents)
  for split, cut in cuts.items():
    documents[split] = [one for one in cut.join(documents[split]) if one]
  return Folded(documents, {split: cut.overlap for split, cut in cuts.items()})


def describe(source: str, alphabet: bytes, name: str) -> list[description.Description]:
  """What the folded text of a source contains, if folding made its held-out text be cut."""
  found = open_folded(source, alphabet)
  if not found.overlaps:
    return []
  texts = {split: sources.sample(one) for split, one in found.documents.items()}
  known = description.Description(
    f'{source} folded into {name}',
    {split: len(one) for split, one in texts.items()},
    {split: sum(map(len, one)) for split, one in texts.items()},
    found.overlaps,
    description.digest(texts),
  )
  blocks = [[document] for split in texts.values() for document in split]
  return [description.kept(known, lambda: blocks, lambda: texts['train'])]
