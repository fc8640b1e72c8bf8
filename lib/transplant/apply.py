# SPDX-License-Identifier: Apache-2.0
"""Tables for a new tokenizer: shared pieces keep their rows, and a method makes all others.

Legend: V old ids, V′ new ids, D model width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lib.embeddings.table_pairs import Tables
from lib.errors import InputError
from lib.tokenizers.base import Tokenizer
from lib.transplant import methods, pieces, vectors
from lib.transplant.methods import Problem


class Made(NamedTuple):
  """New tables, and the origin of their rows.

  Attributes:
    tables: [V', D], in the dtype of the old ones.
    kinds: of each new id, an index into `KINDS`, uint8 [V'].
  """

  tables: Tables
  kinds: np.ndarray

  @property
  def report(self) -> dict[str, int]:
    """Number of new ids of each kind; they add up to V′."""
    return {kind: int((self.kinds == i).sum()) for i, kind in enumerate(KINDS)}


# Copied from equal bytes; copied from a special token of the same name; made from their parts
# alone; made by another method; drawn, because the method knows nothing about them.
KINDS = ('exact', 'special', 'parts', 'approximated', 'fallback')


def transplant(
  tables: Tables,
  old: Tokenizer,
  new: Tokenizer,
  method: str,
  *,
  vectors_of: tuple[np.ndarray, np.ndarray] | None = None,
  donor: Tables | None = None,
  texts: Sequence[bytes] = (),
  copy_exact: bool = True,
  seed: int = 0,
) -> Made:
  """Tables of a model for another tokenizer.

  Args:
    tables: of the old tokenizer; rows beyond its ids (padding) are dropped.
    old: the model's tokenizer.
    new: the other one.
    method: one of `methods.METHODS`, perhaps with its k, such as 'omp32'.
    vectors_of: external vectors of the old ids [V, d] and the new ids [V', d]; by default they are
      made from `texts`, if the method needs any.
    donor: tables of a model with the new tokenizer.
    texts: in the language of the new tokenizer.
    copy_exact: whether shared pieces keep their rows; otherwise only special tokens do, as in the
      published code of WECHSEL, and pieces about which the method knows nothing.
    seed: of what is random.

  Raises:
    InputError: tokenizers whose ids have no fixed bytes, an unknown method, or what it needs.
  """
  old, new = pieces.dictionary(old, 'old'), pieces.dictionary(new, 'new')
  found = methods.find(method)
  if len(tables.input) < old.vocab_size:
    raise InputError(f'tables of {len(tables.input)} rows are not of {old.vocab_size} ids.')
  matched = pieces.match(old, new)
  special = np.zeros(new.vocab_size, bool)
  special[list(new.special_tokens)] = True
  copied = (matched >= 0) & (special | copy_exact)
  ids = np.flatnonzero(~copied)
  if found.needs == 'vectors' and vectors_of is None and texts and ids.size:
    vectors_of = vectors.of_text(old, new, texts)
  cut = pieces.parts(old, new, ids)
  problem = Problem(tables, old, new, matched, ids, cut, vectors_of, donor, texts, seed)
  kinds = np.where(special, KINDS.index('special'), 0).astype(np.uint8)
  made = found.make(problem) if ids.size else None
  if made is not None:
    by_parts = method.startswith('parts') or method == 'tokenadapt_local'
    kinds[ids] = KINDS.index('parts' if by_parts else 'approximated')
    kinds[ids[made.fallback]] = KINDS.index('fallback')
    unknown = np.zeros(new.vocab_size, bool)
    unknown[ids[made.fallback]] = True
    copied |= unknown & (matched >= 0)  # where copy_exact is false
    kinds[copied & unknown] = KINDS.index('exact')

  def whole(before: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    table = np.empty((new.vocab_size, *before.shape[1:]), before.dtype)
    if rows is not None:
      table[ids] = rows
    table[copied] = before[matched[copied]]
    return table

  rows = Tables(None, None) if made is None else made.tables  # type: ignore[arg-type]
  head = whole(tables.output, rows.output)
  tied = tables.input is tables.output
  bias = None if tables.bias is None else whole(tables.bias, rows.bias)
  return Made(Tables(head if tied else whole(tables.input, rows.input), head, bias), kinds)
