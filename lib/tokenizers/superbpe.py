# SPDX-License-Identifier: Apache-2.0
"""SuperBPE (2503.13423): BPE within words, then across them, with the merges of the first kept."""

from collections.abc import Sequence

import numpy as np

from lib.errors import InputError
from lib.tokenizers import bpe_apply, bpe_learn, pretokenizers
from lib.tokenizers.bpe import BPE, train_bpe


def train_superbpe(
  documents: Sequence[bytes],
  vocab_size: int,
  transition: int | None = None,
  rule: str = 'words',
  outer_rule: str = 'digits_punct',
  most_words: int = 4,
  colon_space: bool = False,
  min_count: int = 2,
  parent: BPE | None = None,
) -> BPE:
  """A BPE whose first tokens stay within words, and whose others may cross spaces.

  The first merges are those of `train_bpe`. Then the pieces are those of `outer_rule`, to which all
  merges are applied by rank, in learning as in encoding; every byte is a token. With a transition
  at `vocab_size` it is `train_bpe` of `rule`; at 256, without the two vetoes, that of `outer_rule`.

  Args:
    documents: any bytes.
    vocab_size: the most tokens, 256 or more.
    transition: tokens that are learned within words, 256 to `vocab_size`; None is half of them.
    rule: of `pretokenizers`, for the first stage.
    outer_rule: for the second.
    most_words: the most pieces between spaces in a token of the second stage; 0 is no limit.
    colon_space: whether such a token may have a colon and then a space inside.
    min_count: of a pair that is merged, at least 1.
    parent: instead of the first stage, a BPE of all bytes whose merges are kept: one within words,
      or of this kind, whose training is continued.

  Raises:
    InputError: a size or a transition out of range, an unknown rule, or a parent without all bytes.
  """
  pretokenizers.patterns(outer_rule)
  if parent is not None:
    if transition not in (None, parent.vocab_size):
      raise InputError(
        f'the parent has {parent.vocab_size} tokens, all of which are kept: give no other '
        f'transition; got {transition}'
      )
    if len(parent.alphabet) < 256 or parent.encoder != 'merges':
      raise InputError('the parent must be a BPE with all bytes, encoded by its merges')
    transition = parent.vocab_size
  transition = max(256, vocab_size // 2) if transition is None else transition
  if not 256 <= transition <= max(vocab_size, 256):
    raise InputError(
      f'the transition must be 256 to the {vocab_size} tokens of the vocabulary; got {transition}'
    )
  words = parent or train_bpe(documents, min(transition, vocab_size), rule, min_count)
  if transition == vocab_size:
    return words
  cells, weights = _encoded(words, pretokenizers.count(documents, outer_rule))
  merges = bpe_learn.learn(
    cells, vocab_size, words.pieces, weights,
    min_count=min_count, overlap=True, shared=True, most_words=most_words, colon_space=colon_space,
  )  # fmt: skip
  return BPE(words.alphabet, np.vstack([words.merges, merges]), rule=outer_rule, shared=True)


def inherited(tokenizer: BPE, parent: BPE) -> int:
  """How many of the parent's merges are the first of the tokenizer's, byte for byte."""
  pairs = (
    [(one.pieces[left], one.pieces[right]) for left, right in one.merges.tolist()]
    for one in (tokenizer, parent)
  )
  same = [mine == other for mine, other in zip(*pairs)]
  return same.index(False) if False in same else len(same)


def _encoded(words: BPE, pieces: pretokenizers.Pieces) -> tuple[np.ndarray, np.ndarray]:
  """The ids of each distinct piece, -1 between them, and how often it counts: both [n]."""
  stops = np.cumsum(pieces.sizes)
  ids = bpe_apply.encode(b''.join(pieces.texts()), stops, words.tables)
  ends = np.searchsorted(np.cumsum(words.byte_lengths(ids), dtype=np.int64), stops) + 1
  counts = np.diff(ends, prepend=0) + 1
  return np.insert(ids, ends, -1), np.repeat(pieces.counts, counts)
