# SPDX-License-Identifier: Apache-2.0
"""How many times a training run reads its text.

A model that reads the same text many times memorises it, and different models do so to
different degrees, so they are not comparable. The scales `gpu` and `paper` refuse this.
"""

import functools
import math

from lib import memory
from lib.data import sources
from lib.data.ngram_text import PREFIX
from lib.errors import InputError

MOST = 4  # epochs: beyond about four, repeated text is worth less than fresh text (2305.16264)
REFUSED_AT = ('gpu', 'paper')  # scales
COUNTED = 2**26  # bytes: the size of a longer text is estimated from a sample of it


def check(
  field: str,
  source: str,
  read_bytes: float,
  scale: str,
  limit_bytes: float = math.inf,
  held: float = 1,
  stream: bool = False,
) -> str:
  """A note on how often a run reads its training text; '' for endless text.

  Args:
    field: name of the config field with the source, for the message.
    source: what `open_source` takes; its train split is measured.
    read_bytes: bytes that training reads: steps × rows × bytes of a row.
    scale: of the config.
    limit_bytes: the most bytes of text that the run uses, all at once; with a limit, endless text
      is finite.
    held: bytes of memory that each byte of limited text takes, at least.
    stream: training reads all of the text, and the limit is of a sample that is held in memory.

  Raises:
    InputError: at `gpu` and `paper` scale, more than MOST epochs; or text with a limit, which is
      held in memory, does not fit.
  """
  whole = math.inf if source.startswith(PREFIX) else _size(source)
  part = min(whole, limit_bytes)
  if math.isfinite(limit_bytes) and held * part > (free := memory.of_host()):
    raise InputError(
      f'{part / 1e9:,.0f} GB of the text of {field} {source!r} take {held * part / 1e9:,.0f} GB of '
      f'memory or more, of which {free / 1e9:,.0f} GB are free: choose a smaller train_bytes.'
    )
  size = whole if stream else part
  if math.isinf(size):
    return ''
  epochs = read_bytes / size
  if scale in REFUSED_AT and epochs > MOST:
    other = 'a larger part of it' if size == limit_bytes else f'{field} {PREFIX}{source}'
    raise InputError(
      f'{field} {source!r} has {size:.3g} bytes of training text, which would be read '
      f'{epochs:.3g} times, and a model memorises it; at most {MOST} epochs are allowed: '
      f'fewer steps, more text, or {other}.'
    )
  return f'training reads {epochs:.2g} epochs of its text' if epochs > 1 else 'less than one epoch'


@functools.lru_cache(maxsize=64)
def _size(source: str) -> float:
  """Bytes of the train split: a longer text than COUNTED is estimated from a sample."""
  documents = sources.open_source(source, 'train')
  total = drawn = 0
  for index in sources.stratified(len(documents), seed=0):
    total += len(documents[index])
    drawn += 1
    if total >= COUNTED:
      break
  return total * len(documents) / drawn
