# SPDX-License-Identifier: Apache-2.0
"""BoundlessBPE (2504.00178): BPE within words that can also join neighbouring whole words."""

import functools
from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import ArrayLike

from lib.errors import InputError
from lib.tokenizers import base, bpe_learn, pairs, pretokenizers
from lib.tokenizers.bpe import BPE, gpt2_alphabet
from lib.tokenizers.bpe_apply import note, pop, rank_of


class Boundless(pairs.PairDictionary):
  """Applies its merges within words, then to neighbouring words that are one token each.

  Of the pairs that can be joined, the one with the lowest rank is joined first, the leftmost of
  several. A merge of words has a higher rank than the merges of its words, so words come first.

  Args:
    alphabet: the A characters, ids 0 to A - 1.
    merges: int32 [m, 2], row i joins ids (left, right) to the id of their bytes, or the next one.
    rule: the pretokenizer that defines words.
    outer_rule: the pretokenizer that defines runs of words that can be joined; words lie inside.
  """

  family = 'boundless'
  encoders = ('merges',)

  def __init__(self, alphabet: bytes, merges: ArrayLike, rule: str, outer_rule: str):
    self.rule, self.outer_rule = f'{outer_rule}+{rule}', outer_rule
    pretokenizers.patterns(self.rule)
    super().__init__(alphabet, merges, 'merges', shared=True)

  @functools.cached_property
  def _words(self) -> BPE:
    return BPE(self.alphabet, self.merges, rule=self.rule, shared=True)

  def encode(self, data: bytes) -> np.ndarray:
    """Returns ids, int32 [n]; raises InputError for a byte outside the alphabet."""
    ids = self._words.encode(data)
    stops, ends = pretokenizers.cut(data, self.rule), pretokenizers.cut(data, self.outer_rule)
    return _join_words(ids, self.lengths, stops, ends, self._words.tables.pairs, self.made)

  def state(self) -> base.State:
    """The alphabet, the merges and the rules."""
    names = {'rule': self.rule.removeprefix(f'{self.outer_rule}+'), 'outer_rule': self.outer_rule}
    rules = {key: base.byte_array(name.encode()) for key, name in names.items()}
    return {'alphabet': base.byte_array(self.alphabet), 'merges': self.merges, **rules}

  @classmethod
  def from_state(cls, state: base.State) -> 'Boundless':
    """Rebuilds from `state()`."""
    rules = (state[name].tobytes().decode() for name in ('rule', 'outer_rule'))
    return cls(state['alphabet'].tobytes(), state['merges'], *rules)


def train_boundless(
  documents: Sequence[bytes],
  vocab_size: int,
  rule: str = 'words',
  outer_rule: str = 'digits_punct',
  most_words: int = 0,
  min_count: int = 2,
) -> Boundless:
  """Joins the most frequent pair, within a word or of two tokens that are whole words.

  A token of joined words can be joined with further words. Ties, counts and equal
  bytes are as in `train_bpe`: without merges of words, the merges are those of that function. The
  paper's deletion of rarely used tokens (PickyBPE) is left out.

  Args:
    documents: any bytes.
    vocab_size: the most tokens, 256 or more.
    rule: the pretokenizer that defines words.
    outer_rule: the pretokenizer that defines runs of words that can be joined.
    most_words: most pieces between spaces in a token; 0: no limit.
    min_count: least count of a pair that is merged, at least 1.

  Raises:
    InputError: a smaller vocabulary, or an unknown rule.
  """
  pretokenizers.patterns(f'{outer_rule}+{rule}')
  alphabet = gpt2_alphabet()
  if vocab_size < len(alphabet):
    raise InputError(f'{vocab_size} tokens cannot hold the bytes: ask for {len(alphabet)} or more')
  runs = pretokenizers.count(documents, outer_rule)
  cells, weights = runs.cells(np.argsort(base.byte_array(alphabet)).astype(np.int32))
  stops, ends = pretokenizers.cut_each(runs.texts(), rule), np.cumsum(runs.sizes)
  edges = np.zeros(cells.size + 1, np.bool_)
  edges[stops + np.searchsorted(ends, stops)] = True  # there is a cell after each run
  edges[0] = edges[ends + np.arange(1, ends.size + 1)] = True
  merges = bpe_learn.learn(
    cells, vocab_size, [bytes([byte]) for byte in alphabet], weights,
    min_count=min_count, overlap=True, shared=True, most_words=most_words, edges=edges,
  )  # fmt: skip
  return Boundless(alphabet, merges, rule, outer_rule)


@numba.njit(cache=True, nogil=True)
def _join_words(ids, lengths, stops, ends, pairs_, made):
  """Joins neighbours that are each whole words.

  Args:
    ids: int32 [n], of words; overwritten.
    lengths: int32 [V], bytes of each id.
    stops, ends: int64, where each word and each run of words ends.
    pairs_: the table of merges (`bpe_apply.rules`).
    made: int32 [ranks].
  """
  count, word, run, place, i = 0, 0, 0, 0, 0
  before, after = np.empty(0, np.int32), np.empty(0, np.int32)
  heap = np.empty(0, np.int64)
  while i < ids.size:
    # From i on, the words that are one token each, up to the end of the run.
    begin = i
    while i < ids.size and place + lengths[ids[i]] == stops[word]:
      place, word, i = stops[word], word + 1, i + 1
      if place == ends[run]:
        break
    size = i - begin
    if size > 1:
      if size > before.size:
        before, after = np.empty(2 * size, np.int32), np.empty(2 * size, np.int32)
        heap = np.empty(6 * size, np.int64)
      waiting = 0
      for k in range(size):
        before[k], after[k] = k - 1, k + 1
        if k + 1 < size:
          rank = rank_of(pairs_, ids[begin + k], ids[begin + k + 1])
          waiting = note(heap, waiting, rank, k)
      while waiting:
        rank, k = heap[0] >> 32, heap[0] & 0xFFFFFFFF
        waiting = pop(heap, waiting)
        other = after[k]
        if ids[begin + k] < 0 or other >= size:
          continue
        if rank_of(pairs_, ids[begin + k], ids[begin + other]) != rank:
          continue  # the pair no longer exists
        ids[begin + k], ids[begin + other] = made[rank], -1
        after[k] = after[other]
        if after[k] < size:
          before[after[k]] = k
          rank = rank_of(pairs_, ids[begin + k], ids[begin + after[k]])
          waiting = note(heap, waiting, rank, k)
        if before[k] >= 0:
          rank = rank_of(pairs_, ids[begin + before[k]], ids[begin + k])
          waiting = note(heap, waiting, rank, before[k])
    for k in range(begin, i):
      if ids[k] >= 0:
        ids[count] = ids[k]
        count += 1
    if place == ends[run]:
      run += 1
    elif i < ids.size:  # a word of several tokens
      while place < stops[word]:
        place += lengths[ids[i]]
        ids[count] = ids[i]
        count, i = count + 1, i + 1
      word += 1
      if place == ends[run]:
        run += 1
  return ids[:count].copy()
