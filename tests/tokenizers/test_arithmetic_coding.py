# SPDX-License-Identifier: Apache-2.0
"""The arithmetic coder against big integers, fractions, the ideal length and another library."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import InputError
from lib.tokenizers.coding import arithmetic
from tests.helpers import byte_models, intervals

TOTAL = 2**arithmetic.PRECISION


def cumulative(frequencies):
  return np.concatenate([[0], np.cumsum(frequencies)]).astype(np.uint16)


EDGES = [
  cumulative([TOTAL - 1, 1]),
  cumulative([1, TOTAL - 1]),
  cumulative([1, TOTAL - 2, 1]),
  cumulative([TOTAL // 2, TOTAL // 2]),
  cumulative([TOTAL - 255, *[1] * 255]),
  cumulative([*[1] * 255, TOTAL - 255]),
  cumulative([64] * 256),
  cumulative([TOTAL]),
]


@st.composite
def streams(draw, max_size=40):
  """Rows of frequencies, and symbols that may be the rarest of them."""
  rows, symbols = [], []
  for _ in range(draw(st.integers(0, max_size))):
    row = draw(st.sampled_from(EDGES) | st.builds(random_row, st.integers(0, 2**32 - 1)))
    rows.append(row)
    symbols.append(draw(st.integers(0, len(row) - 2)))
  return rows, symbols


def random_row(seed):
  rng = np.random.default_rng(seed)
  size = rng.integers(1, 256)
  row = rng.dirichlet(np.full(size, 10.0 ** rng.integers(-2, 2)), 1)
  return arithmetic.quantise(row.astype(np.float32))[0]


def reference_code(rows, symbols):
  low, width, bits = intervals.rounded(rows, symbols)
  unit = Fraction(1, 2 ** (32 + bits))
  v, n = intervals.shortest_enclosed(low * unit, (low + width) * unit)
  return (v << -n % 8).to_bytes((n + 7) // 8, 'big'), n


def same_width(rows):
  """Rows [n, 257]; a symbol beyond a row's own has no share and is never asked for."""
  table = np.full((len(rows), 257), TOTAL, np.uint16)
  for out, row in zip(table, rows, strict=True):
    out[: len(row)] = row
  return table


@settings(max_examples=400, deadline=None)
@given(streams())
def test_the_code_is_that_of_big_integers_and_fractions(stream):
  rows, symbols = stream
  code, bits = arithmetic.encode(np.array(symbols, np.uint8), same_width(rows))
  assert (code, bits) == reference_code(rows, symbols)
  low, width, _ = intervals.rounded(rows, symbols)
  assert 2**32 <= width < 2**33
  assert low >= 0


@settings(max_examples=100, deadline=None)
@given(st.lists(streams(25), min_size=1, max_size=5), st.binary(max_size=3))
def test_streams_side_by_side_decode_step_by_step_whatever_follows(batch, tail):
  longest = max(len(symbols) for _, symbols in batch)
  steps = []
  for step in range(longest):
    active = np.array([step < len(symbols) for _, symbols in batch])
    chosen = np.array([(symbols + [0] * longest)[step] for _, symbols in batch])
    steps.append(
      (active, chosen, same_width([(rows + EDGES * longest)[step] for rows, _ in batch]))
    )

  encoder, decoder = arithmetic.Encoder(len(batch)), arithmetic.Decoder(len(batch))
  for active, chosen, rows in steps:
    encoder.put(chosen, rows, active)
  for i, (rows, symbols) in enumerate(batch):
    code, bits = encoder.finish(i)
    assert (code, bits) == reference_code(rows, symbols)
    assert encoder.finish(i) == (b'', 0)  # a new one has begun
    # Bits behind the code do not matter; those within its last byte are zeros and stay.
    decoder.begin(i, code + tail)
  for active, chosen, rows in steps:
    assert decoder.get(rows, active)[active].tolist() == chosen[active].tolist()


def test_a_carry_runs_through_a_long_row_of_ones():
  # 0.1000...: low is brought to just under 1/2 and stays there for 500 bytes, until the last
  # symbol crosses it; or does not.
  under = cumulative([TOTAL // 2 - 1, 2, TOTAL // 2 - 1])
  rows = [under, *[cumulative([TOTAL // 4, TOTAL // 2, TOTAL // 4])] * 4000]
  for last in (0, 2):
    symbols = [1, *[1] * 3999, last]
    code, bits = arithmetic.encode(np.array(symbols, np.uint8), same_width(rows))
    assert (code, bits) == reference_code(rows, symbols)
    assert code[1:400] == (b'\xff' if last == 0 else b'\x00') * 399


def test_long_streams_come_within_a_twentieth_of_a_percent_of_the_ideal():
  text = np.frombuffer(byte_models.held_out()[:20_000], np.uint8)
  model = byte_models.ngram()
  rows = np.stack([model.after(text[max(i - 3, 0) : i].tobytes()) for i in range(text.size)])
  cdfs = arithmetic.quantise(rows)
  share = np.diff(cdfs.astype(int))[np.arange(text.size), text] / TOTAL
  ideal = -np.log2(share).sum()
  code, bits = arithmetic.encode(text, cdfs)
  assert ideal <= bits < ideal * 1.0005
  assert len(code) == -(-bits // 8)
  # The frequencies cost less than the worst case, log2(2^14 / (2^14 - 256)) = 0.0227 bits per byte.
  assert ideal + np.log2(rows[np.arange(text.size), text]).sum() < 0.0227 * text.size


def test_another_librarys_range_coder_needs_as_many_bits():
  constriction = pytest.importorskip('constriction')
  rng = np.random.default_rng(0)
  cdfs = arithmetic.quantise(rng.dirichlet(np.full(256, 0.1), 5000).astype(np.float32))
  share = np.diff(cdfs.astype(int)) / TOTAL
  symbols = np.array([rng.choice(256, p=row) for row in share])
  theirs = constriction.stream.queue.RangeEncoder()
  family = constriction.stream.model.Categorical(perfect=False)
  theirs.encode(symbols.astype(np.int32), family, share.astype(np.float32))
  _, bits = arithmetic.encode(symbols.astype(np.uint8), cdfs)
  ideal = -np.log2(share[np.arange(5000), symbols]).sum()
  assert ideal <= bits < 1.0005 * ideal
  assert abs(bits - theirs.num_bits()) < 64 + 0.0005 * ideal  # theirs are 32-bit words


# Quantisation


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 256), st.integers(0, 2), st.integers(9, 15))
def test_frequencies_are_at_least_one_and_add_up(seed, size, marks, precision):
  rng = np.random.default_rng(seed)
  rows = rng.dirichlet(np.full(size, 10.0 ** rng.integers(-3, 3)), 4).astype(np.float32)
  frequencies = np.diff(arithmetic.quantise(rows, precision, marks).astype(int))
  assert frequencies.shape == (4, size + marks)
  assert frequencies.min() >= 1
  assert (frequencies.sum(axis=1) == 2**precision).all()
  assert (frequencies[:, size:] == 1).all()
  # Every symbol has its share of what the ones leave, but for the rest that goes to the first
  # most probable.
  free = 2**precision - size - marks
  exact = 1 + free * (rows / rows.sum(axis=1, keepdims=True, dtype=np.float64))
  others = np.arange(size) != rows.argmax(axis=1)[:, None]
  error = (exact - frequencies[:, :size])[others]
  assert ((error > -1e-3) & (error < 1 + 1e-3)).all()


def test_ties_go_to_the_lowest_symbol_and_rows_do_not_mix():
  # 4 symbols of 1/3, 1/3, 1/3, 0 at 2^4: 1 + 12/3 = 5, 5, 5, 1. Three of 1/3 at 2^4: 13/3 is
  # 4 and 1/3, so 5, 5, 5, and the first takes the rest: 6.
  third = np.float32(1 / 3)
  assert arithmetic.quantise(np.array([[third, third, third, 0]]), 4).tolist() == [
    [0, 5, 10, 15, 16]
  ]
  assert arithmetic.quantise(np.array([[third, third, third]]), 4).tolist() == [[0, 6, 11, 16]]
  rows = np.random.default_rng(0).dirichlet(np.ones(256), 50).astype(np.float32)
  together = arithmetic.quantise(rows)
  for i in (0, 17, 49):
    assert (arithmetic.quantise(rows[i : i + 1])[0] == together[i]).all()
  assert (arithmetic.quantise(rows * np.float32(0.25)) == together).all()


@pytest.mark.parametrize('wrong', [np.nan, np.inf, -0.1, 'zeros'])
def test_rows_without_a_distribution_are_named(wrong):
  rows = np.full((3, 4), 0.25, np.float32)
  rows[2] = 0 if wrong == 'zeros' else [0.5, 0.5, 0.1, wrong]
  with pytest.raises(InputError, match='row 2 of the probabilities is not a distribution'):
    arithmetic.quantise(rows)


def test_too_many_symbols_for_the_precision_are_refused():
  with pytest.raises(InputError, match='257 symbols need more than 8 bits'):
    arithmetic.quantise(np.ones((1, 256), np.float32), 8, marks=1)
