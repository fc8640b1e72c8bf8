# SPDX-License-Identifier: Apache-2.0
"""Lines that name letters, such as `Ё capital letter io`: a task for which the form of a letter
helps.

A line is a letter and its Unicode name without the script's name, so the target is Latin text for
every script. The names are part of Python.
"""

import math
import unicodedata
from collections.abc import Sequence

import grain
import numpy as np

from lib.data import pipeline
from lib.glyphs import fonts
from lib.glyphs.look_alikes import LETTERS
from lib.tokenizers.base import Tokenizer


def letters(font: fonts.Font, script: str) -> list[str]:
  """Letters of the Basic Multilingual Plane whose name begins with the script, in a font."""
  found = [
    point
    for point in range(0xFFFF)
    if unicodedata.category(chr(point)) in LETTERS
    and unicodedata.name(chr(point), '').startswith(f'{script} ')
  ]
  known = font.render(np.array(found, np.int64), fonts.CELLS[0])[1]
  return [chr(point) for point in np.array(found)[known]]


def split(
  found: Sequence[str], held_out: float, validation: float
) -> tuple[list[str], list[str], list[str]]:
  """Letters of a script for training, validation and test; the latter two by their share."""
  order = [found[i] for i in np.random.default_rng(0).permutation(len(found))]
  first = int(held_out * len(found))
  second = first + math.ceil(validation * len(found))
  return order[second:], order[first:second], order[:first]


def line(letter: str) -> bytes:
  """A document: a letter and its name less the script."""
  return f'{letter} {unicodedata.name(letter).partition(" ")[2].lower()}\n'.encode()


def without_case(letter: str) -> str:
  """The name without the case: the capital and the small form of a letter are one unit."""
  words = unicodedata.name(letter).split()
  return ' '.join(word for word in words if word not in ('CAPITAL', 'SMALL'))


def rows(tokenizer: Tokenizer, members: Sequence[str], length: int) -> dict[str, np.ndarray]:
  """Lines as rows [N, length]; `bytes` is 0 for the letters themselves."""
  batch = {field: np.zeros((len(members), length), np.int32) for field in pipeline.FIELDS}
  for i, letter in enumerate(members):
    ids = tokenizer.encode(line(letter))[:length]
    batch['targets'][i, : ids.size] = ids
    batch['inputs'][i, : ids.size] = [tokenizer.vocab_size, *ids[:-1]]
    batch['segments'][i, : ids.size] = 1
    batch['positions'][i, : ids.size] = np.arange(ids.size)
    batch['bytes'][i, 1 : ids.size] = tokenizer.byte_lengths(ids[1:])
  return batch


def batches(lines: dict[str, np.ndarray], batch_size: int, seed: int) -> grain.IterDataset:
  """Random lines without end."""

  def draw(step: int) -> dict[str, np.ndarray]:
    drawn = np.random.default_rng((seed, int(step))).integers(len(lines['inputs']), size=batch_size)
    return {field: values[drawn] for field, values in lines.items()}

  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
  return grain.MapDataset.range(2**31).map(draw).to_iter_dataset(options)
