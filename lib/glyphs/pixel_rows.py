# SPDX-License-Identifier: Apache-2.0
"""Fixed embedding rows: glyphs and their controls (arXiv 2507.04886).

All rows are float32 [V, D]. Glyph and Gaussian rows have norm 1 as in the paper; codes are 0 and 1.
`with_rms` brings any of them to the scale of a trained table.
"""

import functools

import numpy as np

from lib.errors import InputError
from lib.glyphs.rendering import GlyphTable

CHUNK = 8192  # tokens per batch of float pixels


def glyph_rows(
  table: GlyphTable,
  dim: int | None = None,
  identity: float = 0.0,
  seed: int = 0,
) -> np.ndarray:
  """A row for each picture: principal components of its centred pixels, of norm 1.

  Args:
    table: pictures of cell² pixels.
    dim: D, principal components kept; all cell² where None.
    identity: 0 keeps the paper's collisions: tokens of one picture have one row ('faithful').
      Above 0, a random direction of this share of the glyph's norm is added to each token that
      shares its picture, before its row is scaled to norm 1 ('deduped').
    seed: of those directions.

  Raises:
    InputError: a width that the pictures cannot give.
  """
  pixels = table.cell**2
  dim = pixels if dim is None else dim
  if not 0 < dim <= pixels:
    raise InputError(
      f'pictures of {table.cell} × {table.cell} pixels give no rows of width {dim}: choose '
      f'{pixels} or fewer.'
    )
  mean, covariance = _moments(table)
  rotation = principal_axes(covariance, dim).astype(np.float32)
  # Each picture once, since a matrix product may round equal rows differently.
  first, which = table.distinct
  rows = np.empty((len(first), dim), np.float32)
  for start in range(0, len(first), CHUNK):
    centred = _floats(table, first[start : start + CHUNK]) - mean.astype(np.float32)
    rows[start : start + CHUNK] = centred @ rotation
  rows = unit(rows)[which]
  if identity:
    rng = np.random.default_rng(seed)
    alike = np.flatnonzero(table.shared)
    own = unit(rng.standard_normal((alike.size, dim), np.float32))
    rows[alike] = unit(rows[alike] + identity * own)
  return rows


def _floats(table: GlyphTable, ids: slice | np.ndarray) -> np.ndarray:
  pixels = table.pixels(ids)
  return pixels.reshape(len(pixels), -1).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _moments(table: GlyphTable) -> tuple[np.ndarray, np.ndarray]:
  """Mean and covariance of the pixels, float64.

  Sums of products of bits are whole numbers, exact in float32 below 2²⁴, so that they depend on no
  order of summation.
  """
  size = table.cell**2
  total, products = np.zeros(size), np.zeros((size, size))
  for start in range(0, len(table.bits), CHUNK):
    x = _floats(table, slice(start, start + CHUNK))
    total += x.sum(axis=0)
    products += x.T @ x
  mean = total / len(table.bits)
  return mean, products / len(table.bits) - np.outer(mean, mean)


def principal_axes(covariance: np.ndarray, dim: int) -> np.ndarray:
  """The first `dim` eigenvectors as columns, by falling eigenvalue; each's largest entry is > 0."""
  axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :dim]
  largest = np.abs(axes).argmax(axis=0)
  return axes * np.sign(axes[largest, np.arange(dim)])


def variance_kept(table: GlyphTable) -> np.ndarray:
  """Share of the pictures' variance in the first 1, 2, … principal components, [cell²]."""
  variances = np.linalg.eigvalsh(_moments(table)[1])[::-1].clip(min=0)
  return np.cumsum(variances) / variances.sum()


def shuffled(rows: np.ndarray, seed: int) -> np.ndarray:
  """The same rows, permuted over the tokens: the same geometry without the information of the
  shapes.
  """
  return rows[np.random.default_rng(seed).permutation(len(rows))]


def gaussian_rows(vocab_size: int, dim: int, seed: int) -> np.ndarray:
  """Uniform random directions, of norm 1."""
  return unit(np.random.default_rng(seed).standard_normal((vocab_size, dim), np.float32))


def random_code_rows(vocab_size: int, dim: int, width: int, seed: int) -> np.ndarray:
  """A random code of `width` bits for each token, all different, each bit repeated D / width times.

  Raises:
    InputError: fewer codes than tokens, or a D that is not a multiple of the width.
  """
  _check_code(vocab_size, dim, width)
  rng = np.random.default_rng(seed)
  if width <= 24:
    return _repeated(_binary(rng.permutation(2**width)[:vocab_size], width), dim)
  bits = rng.integers(0, 2, (vocab_size, width), np.uint8)
  while (again := _seen_before(bits)).any():
    bits[again] = rng.integers(0, 2, (again.sum(), width), np.uint8)
  return _repeated(bits, dim)


def id_code_rows(vocab_size: int, dim: int, width: int) -> np.ndarray:
  """The token's id in binary, highest bit first, repeated and refused as a random code is."""
  _check_code(vocab_size, dim, width)
  return _repeated(_binary(np.arange(vocab_size), width), dim)


def _check_code(vocab_size: int, dim: int, width: int) -> None:
  if width < 1 or 2**width < vocab_size or dim % width:
    raise InputError(
      f'codes of {width} bits do not fit {vocab_size} tokens and rows of width {dim}: choose '
      f'{max(1, (vocab_size - 1).bit_length())} bits or more that divide {dim}.'
    )


def _binary(numbers: np.ndarray, width: int) -> np.ndarray:
  return (numbers[:, None] >> np.arange(width)[::-1]) & 1


def _seen_before(bits: np.ndarray) -> np.ndarray:
  """Which codes [V, width] also occur in an earlier row, bool [V]."""
  _, first = np.unique(np.packbits(bits, axis=1), axis=0, return_index=True)
  return ~np.isin(np.arange(len(bits)), first)


def _repeated(bits: np.ndarray, dim: int) -> np.ndarray:
  return np.repeat(bits.astype(np.float32), dim // bits.shape[1], axis=1)


def with_rms(rows: np.ndarray, rms: float) -> np.ndarray:
  """The rows times one number, such that the mean square of their entries is rms².

  With the standard deviation of a trained table's initial rows, both start at one scale.
  """
  return rows * np.float32(rms / np.sqrt(np.mean(np.square(rows), dtype=np.float64)))


def unit(rows: np.ndarray) -> np.ndarray:
  """Each row divided by its norm; rows of zeros are kept."""
  norms = np.linalg.norm(rows, axis=1, keepdims=True)
  return rows / np.where(norms > 0, norms, 1).astype(rows.dtype)
