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

  Raises:
    InputError: a size or a transition out of range, or an unknown rule.
  """
  pretokenizers.patterns(outer_rule)
  transition = max(256, vocab_size // 2) if transition is None else transition
  if not 256 <= transition <= max(vocab_size, 256):
    raise InputError(
      f'the transition must be 256 to the {vocab_size} tokens of the vocabulary; got {transition}'
    )
  words = train_bpe(documents, min(transition, vocab_size), rule, min_count)
  if transition == vocab_size:
    return words
  cells, weights = _encoded(words, pretokenizers.count(documents, outer_rule))
  merges = bpe_learn.learn(
    cells, vocab_size, words.pieces, weights,
    min_count=min_count, overlap=True, shared=True, most_words=most_words, colon_space=colon_space,
  )  # fmt: skip
  return BPE(words.alphabet, np.vstack([words.merges, merges]), rule=outer_rule, shared=True)


def _encoded(words: BPE, pieces: pretokenizers.Pieces) -> tuple[np.ndarray, np.ndarray]:
  """The ids of each distinct piece, -1 between them, and how often it counts: both [n]."""
  data = pieces.data.tobytes()
  each = [data[a : a + size] for a, size in zip(pieces.starts, pieces.sizes, strict=True)]
  stops = np.cumsum(pieces.sizes)
  ids = bpe_apply.encode(b''.join(each), stops, words.tables)
  ends = np.searchsorted(np.cumsum(words.byte_lengths(ids), dtype=np.int64), stops) + 1
  counts = np.diff(ends, prepend=0) + 1
  return np.insert(ids, ends, -1), np.repeat(pieces.counts, counts)
