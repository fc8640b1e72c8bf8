# SPDX-License-Identifier: Apache-2.0
"""A summary of what was read from a source, as one line and as numbers."""

import codecs
import contextlib
import dataclasses
import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lib import atomic, cache
from lib.data.overlap import Overlap

SCRIPTS = 4  # number of scripts that are named
SHOWN = 0.0005  # a script with a smaller share of the letters is not named


@dataclasses.dataclass(frozen=True)
class Description:
  """The contents of a source.

  Attributes:
    source: its spec.
    documents: split -> number of documents.
    bytes: split -> bytes of its documents; estimated where `sampled`.
    overlaps: split -> overlap of validation and test with train, before and after cutting.
    digest: sha256 of the documents, or of the sample.
    files: number of the user's own files with text; 0 for other sources.
    copies_dropped: files left out because another has the same content.
    scripts: script -> share of the letters of training text, the most frequent first.
    longest_line: bytes.
    not_utf8_bytes: bytes outside well-formed UTF-8.
    not_utf8_files: files with such bytes; where there are no files, documents.
    sampled: whether all but `documents` is of a sample; the true overlap is then larger.
  """

  source: str
  documents: Mapping[str, int]
  bytes: Mapping[str, int]
  overlaps: Mapping[str, Overlap]
  digest: str
  files: int = 0
  copies_dropped: int = 0
  scripts: Mapping[str, float] = dataclasses.field(default_factory=dict)
  longest_line: int = 0
  not_utf8_bytes: int = 0
  not_utf8_files: int = 0
  sampled: bool = False

  def __str__(self) -> str:
    """One line."""
    sizes = ', '.join(f'{split} {_size(size)}' for split, size in self.bytes.items())
    about = 'about ' if self.sampled else ''
    parts = [
      f'{sum(self.documents.values()):,} documents, {about}{_size(sum(self.bytes.values()))} '
      f'({sizes})'
    ]
    if self.files:
      copies = f', {self.copies_dropped:,} equal copies left out' if self.copies_dropped else ''
      parts.insert(0, f'{self.files:,} files{copies}')
    if self.not_utf8_bytes:
      kind = 'files' if self.files else 'documents'
      parts.append(f'{self.not_utf8_bytes:,} bytes in {self.not_utf8_files:,} {kind} are not UTF-8')
    if self.scripts:
      parts.append(', '.join(f'{script} {share:.1%}' for script, share in self.scripts.items()))
    parts.append(f'longest line {self.longest_line:,} bytes')
    for split, (before, after, kept) in self.overlaps.items():
      if self.sampled:
        parts.append(f'{after:.2%} or more of {split} occurs in train (of a sample; not cut)')
      else:
        parts.append(f'{split} shared {before:.1%} with train, now {after:.2%} ({kept:.1%} kept)')
    return f'{self.source}: ' + '; '.join(parts)


Texts = Iterable[Iterable[bytes]]  # files, or documents, each in blocks


def kept(
  known: Description, texts: Callable[[], Texts], letters: Callable[[], Sequence[bytes]]
) -> Description:
  """`measured`, from the cache folder if the same documents were measured before."""
  path = cache.folder('descriptions') / f'{known.digest}.json'
  names = ('scripts', 'longest_line', 'not_utf8_bytes', 'not_utf8_files')
  try:
    content = json.loads(path.read_text())
    return dataclasses.replace(known, **{name: content[name] for name in names})
  except (OSError, KeyError, TypeError, ValueError):
    found = measured(known, texts(), letters())
  with contextlib.suppress(OSError):  # without a cache only time is lost
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, json.dumps({name: getattr(found, name) for name in names}))
  return found


def measured(known: Description, texts: Texts, letters: Sequence[bytes]) -> Description:
  """The description with what a pass over the texts, and a sample of their letters, shows."""
  counts = [measure(blocks) for blocks in texts]
  return dataclasses.replace(
    known,
    scripts=scripts(letters),
    longest_line=max((one.longest_line for one in counts), default=0),
    not_utf8_bytes=sum(one.not_utf8 for one in counts),
    not_utf8_files=sum(one.not_utf8 > 0 for one in counts),
  )


class Text(NamedTuple):
  """Counts of a text.

  Attributes:
    longest_line: bytes.
    not_utf8: bytes outside well-formed UTF-8.
  """

  longest_line: int
  not_utf8: int


def measure(blocks: Iterable[bytes]) -> Text:
  """Counts of one text that arrives in blocks, which may end anywhere."""
  decoder = codecs.getincrementaldecoder('utf-8')('surrogateescape')
  longest = line = foreign = 0
  for block in blocks:
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord('\n'))
    if ends.size:
      inner = int(np.diff(ends).max(initial=1)) - 1
      longest = max(longest, line + int(ends[0]), inner)
      line = len(block) - int(ends[-1]) - 1
    else:
      line += len(block)
    foreign += _escaped(decoder.decode(block))
  return Text(max(longest, line), foreign + _escaped(decoder.decode(b'', final=True)))


def scripts(documents: Sequence[bytes]) -> dict[str, float]:
  """Shares of the most frequent scripts among the letters, by the first word of their names."""
  counts = Counter(''.join(document.decode('utf-8', 'ignore') for document in documents))
  letters: Counter[str] = Counter()
  for character, count in counts.items():
    if unicodedata.category(character) in ('Lu', 'Ll', 'Lt', 'Lo'):
      name = unicodedata.name(character, 'unnamed')
      letters[name.split()[0].split('-')[0].capitalize()] += count
  found = [(script, count / letters.total()) for script, count in letters.most_common(SCRIPTS)]
  return {script: share for script, share in found if share >= SHOWN}


def digest(splits: Mapping[str, Iterable[bytes]]) -> str:
  """sha256, in hex, of the documents of all splits."""
  found = hashlib.sha256()
  for split, documents in splits.items():
    found.update(f'{split}\n'.encode())
    for document in documents:
      found.update(b'%d\n' % len(document) + document)
  return found.hexdigest()


def _escaped(text: str) -> int:
  """Number of bytes that are not UTF-8; each is a lone surrogate in `text`."""
  try:
    text.encode()
  except UnicodeEncodeError:
    return len(text) - len(text.encode('utf-8', 'ignore').decode())
  return 0


def _size(count: int) -> str:
  for unit, name in ((10**9, 'GB'), (10**6, 'MB'), (10**3, 'kB')):
    if count >= unit:
      return f'{count / unit:.3g} {name}'
  return f'{count} bytes'
