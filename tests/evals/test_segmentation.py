# SPDX-License-Identifier: Apache-2.0
"""Measures of segmentation: by hand, by their bounds, and how one of them is fooled."""

import numpy as np
import pytest

from lib import stats
from lib.evals import segmentation
from lib.tokenizers.base import Dictionary
from lib.tokenizers.bpe import train_bpe
from lib.tokenizers.characters import train_bytes
from tests.helpers import byte_models

TEXT = byte_models.sources()
BLOCKS = [TEXT[i : i + 2000] for i in range(0, 20_000, 2000)]


def renyi_by_definition(ids, size, order):
  shares = np.unique(ids, return_counts=True)[1] / len(ids)
  return np.log(sum(share**order for share in shares)) / (1 - order) / np.log(size)


def test_sums_of_a_text_are_those_of_its_tokens():
  tokenizer = train_bpe(BLOCKS, 400)
  found = segmentation.segment(tokenizer, BLOCKS)
  rows = [tokenizer.encode(block) for block in BLOCKS]
  assert found.tokens.tolist() == [row.size for row in rows]
  assert found.counts.sum(axis=1).tolist() == found.tokens.tolist()
  assert found.sizes.sum() == 20_000
  assert found.words.tolist() == [len(block.decode().split()) for block in BLOCKS]
  assert found.restored == (1, 1, 0, 0)
  counts = found.counts.sum(axis=0)
  expected = renyi_by_definition(np.concatenate(rows), 400, 2.5)
  assert segmentation.renyi_efficiency(counts, 400) == pytest.approx(expected, rel=1e-12)
  both = segmentation.join([segmentation.segment(tokenizer, part) for part in (BLOCKS, BLOCKS[:3])])
  assert both.tokens.tolist() == [*found.tokens, *found.tokens[:3]]
  assert both.restored == (1, 1, 0, 0)


def test_measures_have_their_bounds():
  assert segmentation.renyi_efficiency(np.full(64, 7), 64) == pytest.approx(1, abs=1e-12)
  assert segmentation.renyi_efficiency([9, 0, 0], 3) == 0
  assert segmentation.gini([3, 3, 3]) == 0
  assert segmentation.gini([0, 0, 0, 1]) == pytest.approx(3 / 4)
  # Bytes never move; a code whose tokens depend on where they begin loses its boundaries.
  whole = segmentation.segment(train_bytes([], 256), [b'abcdefgh' * 4])
  stay, there = whole.stable[0]
  assert stay == there == 15
  pairs = Dictionary([b'a', b'aa'])
  moved = segmentation.segment(pairs, [b'a' * 10]).stable[0]
  assert moved.tolist() == [0, 2]  # 5 odd bytes are left, of which pairs begin at the other places


def test_lossy_text_and_unknown_ids_are_seen():
  class Upper(Dictionary):
    lossless, unknown_ids = False, frozenset({1})

  found = segmentation.segment(Upper([b'a', b'b']), [b'aabb', b'aaaa'])
  assert found.restored.share_unknown == 2 / 8


def test_duplicated_tokens_raise_renyi_efficiency_and_nothing_else():
  """2402.14614: each token twice, either at random: less information a token, a higher measure."""
  tokenizer = train_bpe(BLOCKS, 300)
  ids = np.concatenate([tokenizer.encode(block) for block in BLOCKS])
  twice = ids + 300 * np.random.default_rng(0).integers(0, 2, ids.size)
  efficiency = lambda ids, size: segmentation.renyi_efficiency(np.bincount(ids), size)
  assert efficiency(twice, 600) > efficiency(ids, 300) + 0.01
  assert tokenizer.decode(twice % 300) == b''.join(BLOCKS)


def test_dropped_tokens_raise_renyi_efficiency_and_lengthen_the_text():
  """2402.14614: the most frequent tokens are written as two rarer ones, half of the time."""
  text, size, rng = TEXT[:60_000], 2000, np.random.default_rng(0)
  tokenizer = train_bpe([text], size)
  ids = tokenizer.encode(text)
  counts = np.bincount(ids, minlength=size)
  known = {piece: i for i, piece in enumerate(tokenizer.pieces)}
  rarest = {}
  for token in np.argsort(-counts)[:5].tolist():
    piece = tokenizer.pieces[token]
    halves = [(known.get(piece[:at]), known.get(piece[at:])) for at in range(1, len(piece))]
    halves = [pair for pair in halves if None not in pair]
    if halves:
      rarest[token] = min(halves, key=lambda pair: counts[[*pair]].max())
  dropped = [
    part
    for token in ids.tolist()
    for part in (rarest[token] if token in rarest and rng.random() < 1 / 2 else (token,))
  ]
  efficiency = lambda ids: segmentation.renyi_efficiency(np.bincount(ids), size)
  assert efficiency(dropped) > efficiency(ids) + 0.005
  assert len(dropped) > 1.02 * ids.size
  assert tokenizer.decode(dropped) == text


def test_a_bootstrap_has_the_error_of_a_mean_and_keeps_strata_apart():
  values = np.random.default_rng(0).normal(size=200)
  mean = lambda weights: float(weights @ values / weights.sum())
  found, exact = stats.bootstrap(mean, [200], draws=2000), stats.mean(values)
  assert found.value == pytest.approx(exact.value)
  assert found.sem == pytest.approx(exact.sem, rel=0.06)
  assert (found.n, found.df) == ('200', 199)
  first = lambda weights: float(weights[:150].sum())
  assert stats.bootstrap(first, [150, 50]).sem == 0
  assert stats.bootstrap(mean, [1] * 200).sem is None
