# SPDX-License-Identifier: Apache-2.0
"""Tokenizers that a byte model drives, by kind.

ac                   one arithmetic-coded stream per document, no windows
greedy, exact        equal-info windows; tables for 12 and 16 bits, otherwise the byte model steps
delay, numbered      tables: the paper's lossless variant, and a numbering of the texts of greedy
top, parsed, pruned  dictionaries of 2^bits texts that the byte model selects
"""

import functools
from collections.abc import Sequence

from lib.compression.byte_model import ByteModel
from lib.compression.byte_stepper import ByteStepper
from lib.tokenizers.base import Dictionary, Tokenizer
from lib.tokenizers.coding import window_dictionaries
from lib.tokenizers.coding.model import MemoizedModel
from lib.tokenizers.coding.streams import SteppedAC
from lib.tokenizers.coding.tabulate import LIMIT_BITS, number, tabulate
from lib.tokenizers.coding.window_streams import SteppedEqualInfo
from lib.tokenizers.coding.windows import EqualInfo

WINDOWS = ('greedy', 'delay', 'exact', 'numbered')
IN_WINDOWS = (*WINDOWS, 'top', 'parsed')  # tables whose codes have `bits` bits
KINDS = ('ac', *IN_WINDOWS, 'pruned')
FROM_TEXT = ('parsed', 'pruned')

stepper = functools.cache(ByteStepper)  # of a byte model, shared by its codecs, one at a time
_memoized = functools.cache(MemoizedModel)


def steps(kind: str, bits: int) -> bool:
  """Whether the byte model steps through a text to encode it: all of AC, and windows without a
  table.
  """
  return kind == 'ac' or (kind in ('greedy', 'exact') and bits > LIMIT_BITS)


def make(
  model: ByteModel, kind: str, bits: int, token_bits: int, documents: Sequence[bytes] = ()
) -> Tokenizer:
  """A tokenizer by the byte model.

  Stepped tokenizers share one stepper, so only one can run at a time.

  Args:
    model: the byte model.
    kind: one of KINDS.
    bits: of a window, or log2 of the number of texts; ignored for `ac`.
    token_bits: 8, 12 or 16; ignored for `pruned`, whose ids are its texts.
    documents: the text that the kinds in FROM_TEXT count on.

  Raises:
    InputError: bits that the kind does not have.
  """
  if kind == 'pruned':
    candidates, _ = window_dictionaries.likely(_memoized(model), window_dictionaries.POOL << bits)
    pieces = window_dictionaries.pruned(candidates, b''.join(documents), bits, 'minimal')
    return Dictionary(pieces, 'minimal', bytes(range(256)))
  if kind == 'ac':
    return SteppedAC(stepper(model), model.fingerprint, token_bits)
  if bits > LIMIT_BITS:
    return SteppedEqualInfo(stepper(model), model.fingerprint, bits, kind, token_bits)
  if kind == 'top':
    table = number(window_dictionaries.top(_memoized(model), bits), bits)
  elif kind == 'parsed':
    text = b''.join(documents)
    table = number(window_dictionaries.parsed(_memoized(model), text, bits), bits)
  else:
    table = tabulate(_memoized(model), bits, kind)
  return EqualInfo(table, token_bits)
