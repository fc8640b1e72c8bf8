# SPDX-License-Identifier: Apache-2.0
"""How many times a training run reads its text.

A model that reads the same text many times memorises it, and models of different kinds do so to
different degrees, so they can no longer be compared. `gpu` and `paper` scales refuse that.
"""

import functools

from lib.data import sources
from lib.data.ngram_text import PREFIX
from lib.errors import InputError

MOST = 4  # epochs: beyond about four, repeated text is worth less than fresh text (2305.16264)
REFUSED_AT = ('gpu', 'paper')  # scales
UNCOUNTED = (PREFIX, 'tfds:')  # endless text, and prepared sets of a size of their own


def check(field: str, source: str, read_bytes: float, scale: str) -> str:
  """How often a run reads its training text, in words for a row's note; '' for endless text.

  Args:
    field: name of the config field that holds the source, for the message.
    source: what `open_source` takes; its train split is measured.
    read_bytes: bytes that training reads: steps × rows × bytes of a row.
    scale: of the config.

  Raises:
    InputError: at `gpu` and `paper` scale, more than MOST epochs of embedded text or own files.
  """
  if source.startswith(UNCOUNTED):
    return ''
  size = _size(source, read_bytes)
  epochs = read_bytes / size
  if scale in REFUSED_AT and epochs > MOST:
    raise InputError(
      f'{field} {source!r} has {size:.3g} bytes of training text and would be read {epochs:.3g} '
      f'times over, which a model memorises; at most {MOST} epochs are right: fewer steps, more '
      f'text, or {field} {PREFIX}{source}.'
    )
  return f'training reads {epochs:.2g} epochs of its text' if epochs > 1 else 'less than one epoch'


@functools.lru_cache(maxsize=64)
def _size(source: str, enough: float) -> float:
  """Bytes of the train split, counted no further than `enough`."""
  documents, total = sources.open_source(source, 'train'), 0
  for index in range(len(documents)):
    total += len(documents[index])
    if total >= enough:
      break
  return float(total)
