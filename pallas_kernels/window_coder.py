# SPDX-License-Identifier: Apache-2.0
"""A step of many arithmetic coders side by side: probabilities to integers to intervals.

Every integer is that of `lib.tokenizers.coding`, whose quantiser divides in float64 and whose
intervals have 47 bits. Here both are done in integers of 32 bits alone, in one order, so that the
result depends on no backend. The one float operation left is the caller's softmax: what it gives
may differ between backends in the last bit, and then so do the codes.

Legend: N streams, S symbols; tiles of n streams. A number of 64 bits is a pair of uint32, its high
and its low half.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.implementations import backend, check_implementation, check_vector_memory

IMPLEMENTATIONS = ('reference', 'pallas')
PRECISION = 14  # log2 of what the frequencies of all symbols add up to
Pair = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class BlockSizes:
  """Tiles of the Pallas kernel.

  Attributes:
    n: streams a tile, a multiple of 8.
  """

  n: int = 32

  def __post_init__(self) -> None:
    if self.n % 8 or self.n < 1:
      raise ValueError(f'tiles of {self.n} streams: n must be a multiple of 8.')

  def memory(self, symbols: int) -> int:
    """Bytes of a TPU core's vector memory that the kernel takes."""
    return 4 * self.n * (20 * -(-symbols // 128) * 128 + 2 * 8 * 128)


class Intervals(NamedTuple):
  """Intervals [low, low + 2³² + width) in units of 2^−(32 + bits), one a stream.

  Attributes:
    low: uint32 [N], the last 32 bits of it.
    width: uint32 [N].
    bits: int32 [N], doublings since the window began.
  """

  low: jax.Array
  width: jax.Array
  bits: jax.Array


def fresh(streams: int) -> Intervals:
  """Windows that begin: each interval is [0, 1)."""
  zero = jnp.zeros(streams, jnp.uint32)
  return Intervals(zero, zero, zero.astype(jnp.int32))


# --- numbers of 64 bits ---------------------------------------------------------------------------


def _add(a: Pair, b: Pair) -> Pair:
  low = a[1] + b[1]
  return a[0] + b[0] + (low < b[1]).astype(jnp.uint32), low


def _less(a: Pair, b: Pair) -> Pair:
  """a − b."""
  return a[0] - b[0] - (a[1] < b[1]).astype(jnp.uint32), a[1] - b[1]


def _reaches(a: Pair, b: Pair) -> jax.Array:
  """Whether a ≥ b."""
  return (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] >= b[1]))


def _times(a: Pair, n: jax.Array) -> Pair:
  """a · n for n below 2¹⁶."""
  first = (a[1] & 0xFFFF) * n
  second = (a[1] >> 16) * n + (first >> 16)
  return a[0] * n + (second >> 16), (second << 16) | (first & 0xFFFF)


def _left(a: Pair, n: jax.Array) -> Pair:
  """a · 2ⁿ for n below 64. No shift of a half is by all its 32 bits: that is undefined."""
  far, n = n >= 32, (n & 31).astype(jnp.uint32)
  carried = (a[1] >> 1) >> (31 - n)
  low = a[1] << n
  return jnp.where(far, low, (a[0] << n) | carried), jnp.where(far, 0, low)


def _right(a: Pair, n: jax.Array) -> Pair:
  """a / 2ⁿ for n below 64, rounded down."""
  far, n = n >= 32, (n & 31).astype(jnp.uint32)
  carried = (a[0] << 1) << (31 - n)
  high = a[0] >> n
  return jnp.where(far, 0, high), jnp.where(far, high, (a[1] >> n) | carried)


def _rounded(a: Pair, n: jax.Array) -> Pair:
  """a / 2ⁿ for n from 1 to 63, rounded to the nearest, of two equally near to the even one."""
  zero = jnp.zeros_like(a[1])
  odd = _right(a, n)[1] & 1
  below_half = _less(_left((zero, zero + 1), n - 1), (zero, 1 - odd))
  return _right(_add(a, below_half), n)


# --- one step, in the integers that reference and kernel share ------------------------------------


def _scaled(probabilities: jax.Array) -> Pair:
  """Each over the largest of its row, times 2⁴⁰: as float64 has them, rounded to integers."""
  bits = lax.bitcast_convert_type(probabilities, jnp.int32) & 0x7FFFFFFF
  number, exponent = _parts(bits)
  largest, top = _parts(bits.max(axis=1, keepdims=True))
  smaller = number < largest
  rest = jnp.where(smaller, number << 1, number)  # a quotient from 1 to 2
  below = top - exponent + smaller.astype(jnp.int32)

  def digit(_, carry):
    rest, quotient = carry
    one = rest >= largest
    rest = jnp.where(one, rest - largest, rest)
    return rest << 1, (quotient << 1) | one.astype(jnp.int32)

  zero = jnp.zeros_like(rest)
  rest, high = lax.fori_loop(0, 27, digit, (rest, zero))
  rest, low = lax.fori_loop(0, 27, digit, (rest, zero))
  # 54 digits, and one for all that follow: what rounding to the 53 digits of a float64 depends on.
  high, low = (
    high.astype(jnp.uint32),
    ((low << 1) | (rest > 0).astype(jnp.int32)).astype(jnp.uint32),
  )
  quotient = _rounded((high >> 4, (high << 28) | low), jnp.int32(2))
  return _rounded(quotient, 12 + jnp.minimum(below, 43))


def _parts(bits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Significand of 24 bits, the first one set unless it is zero, and exponent of float32 bits."""
  exponent, fraction = bits >> 23, bits & 0x7FFFFF
  number = jnp.where(exponent > 0, fraction | 0x800000, fraction)
  zeros = lax.clz(number) - 8
  return number << zeros, jnp.maximum(exponent, 1) - zeros


def _frequencies(probabilities: jax.Array) -> jax.Array:
  """Int32 [N, S], each at least 1, that add up to 2^PRECISION."""
  symbols = probabilities.shape[1]
  scaled = _scaled(probabilities)
  free = jnp.uint32((1 << PRECISION) - symbols)
  halves = (scaled[1] & 0xFFFF, scaled[1] >> 16, scaled[0])
  first, second, third = (
    half.astype(jnp.int32).sum(axis=1, keepdims=True).astype(jnp.uint32) for half in halves
  )
  total = _add((third, first), (second >> 16, second << 16))

  def digit(i, carry):
    share, *rest = carry
    part = _left(total, PRECISION - 1 - i)
    one, less = _reaches(rest, part), _less(rest, part)
    high, low = (jnp.where(one, new, old) for new, old in zip(less, rest))
    return (share << 1) | one.astype(jnp.int32), high, low

  zero = jnp.zeros(probabilities.shape, jnp.int32)
  share, _, _ = lax.fori_loop(0, PRECISION, digit, (zero, *_times(scaled, free)))
  frequencies = share + 1
  symbol = lax.broadcasted_iota(jnp.int32, frequencies.shape, 1)
  # Of the most probable symbols, those at 2⁴⁰, the first one gets what is left over.
  best = jnp.where(scaled[0] == 1 << 8, symbol, symbols).min(axis=1, keepdims=True)
  spare = (1 << PRECISION) - frequencies.sum(axis=1, keepdims=True)
  return frequencies + jnp.where(symbol == best, spare, 0)


def _stops(frequencies: jax.Array) -> jax.Array:
  """Sums of each row up to and with each symbol, by doubling: TPUs have no cumulative sum."""
  shift = 1
  while shift < frequencies.shape[1]:
    before = jnp.concatenate(
      [jnp.zeros_like(frequencies[:, :shift]), frequencies[:, :-shift]], axis=1
    )
    frequencies, shift = frequencies + before, 2 * shift
  return frequencies


def _step(window, probabilities, symbols, low, width, bits):
  """As `window_coder`, with columns [N, 1]."""
  frequencies = _frequencies(probabilities)
  place = lax.broadcasted_iota(jnp.int32, frequencies.shape, 1)
  start = jnp.where(place < symbols, frequencies, 0).sum(axis=1, keepdims=True)
  stop = jnp.where(place <= symbols, frequencies, 0).sum(axis=1, keepdims=True)
  zero = jnp.zeros_like(width)
  whole = zero + 1, width
  ends = (
    _right(_times(whole, end.astype(jnp.uint32)), jnp.int32(PRECISION)) for end in (start, stop)
  )
  cut, end = ends
  low, wide = low + cut[1], _less(end, cut)
  shift = 32 + bits - window  # of a window's cell; at 0 and below it is a unit at most
  cell = _left((zero, zero + 1), jnp.clip(shift, 0, 32))
  gap = (0 - low) & _less(cell, (zero, zero + 1))[1]
  fits = (shift <= 0) | ((shift <= 32) & _reaches(wide, _add((zero, gap), cell)))
  more = jnp.where(wide[0] > 0, 0, lax.clz(wide[1]).astype(jnp.int32) + 1)
  low, width = low << more.astype(jnp.uint32), _left(wide, more)[1]
  return fits.astype(jnp.int32), low, width, bits + more, _stops(frequencies)


# --- pallas: TPU kernel ---------------------------------------------------------------------------


def _kernel(window, *refs):
  inputs, outputs = refs[:5], refs[5:]
  for ref, result in zip(outputs, _step(window, *(ref[...] for ref in inputs))):
    ref[...] = result


def pallas(
  window: int,
  probabilities: jax.Array,
  columns: tuple[jax.Array, ...],
  blocks: BlockSizes = BlockSizes(),
  interpret: object = False,
) -> tuple[jax.Array, ...]:
  """The TPU kernel on [N, S] and four columns [N, 1], whatever the backend: for compiling."""
  streams, symbols = probabilities.shape
  check_vector_memory(f'tiles of {blocks.n} streams with {symbols} symbols', blocks.memory(symbols))
  spare = -streams % blocks.n
  padded = [
    jnp.pad(part, ((0, spare), (0, 0)), constant_values=1) for part in (probabilities, *columns)
  ]
  column = pl.BlockSpec((blocks.n, 1), lambda i: (i, 0))
  rows = pl.BlockSpec((blocks.n, symbols), lambda i: (i, 0))
  dtypes = (jnp.int32, jnp.uint32, jnp.uint32, jnp.int32)
  size = streams + spare
  shapes = [jax.ShapeDtypeStruct((size, 1), dtype) for dtype in dtypes]
  found = pl.pallas_call(
    functools.partial(_kernel, window),
    grid=(size // blocks.n,),
    in_specs=[rows, *[column] * 4],
    out_specs=[*[column] * 4, rows],
    out_shape=[*shapes, jax.ShapeDtypeStruct((size, symbols), jnp.int32)],
    compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel',)),
    interpret=interpret,
  )(*padded)
  return tuple(part[:streams] for part in found)


# --- the public function --------------------------------------------------------------------------


def window_coder(
  probabilities: jax.Array,
  symbols: jax.Array,
  intervals: Intervals,
  window: int,
  *,
  implementation: str | None = None,
  blocks: BlockSizes = BlockSizes(),
  interpret: object = False,
) -> tuple[jax.Array, Intervals, jax.Array]:
  """Narrows every stream's interval to a symbol, and says whether that still fits its window.

  Args:
    probabilities: float32 [N, S], none negative, in each row one above 0; S at most 256.
    symbols: int32 [N], the symbol of each stream, below S.
    intervals: of the streams since their windows began.
    window: bits of a window, b.
    implementation: 'reference' (on any backend), 'pallas' (on a TPU), or None for 'pallas' on a
      TPU and the reference elsewhere.
    blocks: tiles of 'pallas'.
    interpret: emulate 'pallas' on any backend (for tests: slow).

  Returns:
    Whether the text with the symbol encloses a cell [v, v + 1) / 2^b, bool [N]; the intervals with
    it; and where each symbol's share ends, int32 [N, S], of 2¹⁴ in all.

  Raises:
    ValueError: no such implementation, one that cannot run here, tiles that do not fit, or more
      than 256 symbols.
  """
  if probabilities.dtype != jnp.float32 or probabilities.shape[1] > 256:
    raise ValueError(
      f'probabilities {probabilities.dtype}{list(probabilities.shape)}: give float32 of at most '
      '256 symbols.'
    )
  if implementation is None:
    implementation = 'pallas' if backend() == 'tpu' else 'reference'
  check_implementation('window_coder', implementation, IMPLEMENTATIONS, interpret)
  columns = tuple(part[:, None] for part in (symbols.astype(jnp.int32), *intervals))
  if implementation == 'pallas':
    found = pallas(window, probabilities, columns, blocks, interpret)
  else:
    found = _step(window, probabilities, *columns)
  fits, *narrowed, stops = found
  return fits[:, 0] > 0, Intervals(*(part[:, 0] for part in narrowed)), stops
