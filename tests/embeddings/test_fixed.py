# SPDX-License-Identifier: Apache-2.0
"""Rows from pictures, their controls, and tables that training leaves bit for bit alone."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from lib.embeddings.fixed import FixedRows
from lib.errors import InputError
from lib.glyphs import fonts, pixel_rows, rendering
from lib.models.decoder import Decoder, LanguageModel
from lib.objectives.next_token import next_token
from lib.parallel import sharding
from lib.train import loop, optimizer
from tests.helpers import tiny

TOKENS = [*map(chr, range(32, 127)), 'А', 'О', 'the', 'and', '\n', '<special_1>', '<special_2>']


@functools.cache
def table(cell=16):
  return rendering.render(TOKENS, fonts.find_font('dejavu'), cell)


def cosines(rows):
  rows = pixel_rows.unit(np.asarray(rows, np.float64))
  return rows @ rows.T


def test_the_rotation_keeps_cosines():
  pictures = table().pixels().reshape(len(TOKENS), -1).astype(np.float64)
  rows = pixel_rows.glyph_rows(table())
  assert rows.shape == (len(TOKENS), 256)
  assert rows.dtype == np.float32
  expected = cosines(pictures - pictures.mean(axis=0))
  np.testing.assert_allclose(cosines(rows), expected, atol=2e-5)
  np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_fewer_components_are_the_leading_ones():
  pictures = table().pixels().reshape(len(TOKENS), -1).astype(np.float64)
  _, _, axes = np.linalg.svd(pictures - pictures.mean(axis=0))
  expected = pixel_rows.unit((pictures - pictures.mean(axis=0)) @ axes[:12].T)
  rows = pixel_rows.glyph_rows(table(), 12)
  assert (rows == pixel_rows.glyph_rows(table(), 12)).all()
  signs = np.sign((rows * expected).sum(axis=0))
  np.testing.assert_allclose(rows, expected * signs, atol=1e-4)


def test_signs_of_axes_are_fixed():
  rng = np.random.default_rng(0)
  covariance = np.cov(rng.standard_normal((20, 100)) * np.arange(1, 21)[:, None])
  axes = pixel_rows.principal_axes(covariance, 5)
  assert (axes[np.abs(axes).argmax(axis=0), range(5)] > 0).all()
  variances = np.diag(axes.T @ covariance @ axes)
  np.testing.assert_allclose(variances, np.linalg.eigvalsh(covariance)[::-1][:5])


def test_variance_kept_is_that_of_the_singular_values():
  pictures = table().pixels().reshape(len(TOKENS), -1).astype(np.float64)
  scale = np.linalg.svd(pictures - pictures.mean(axis=0), compute_uv=False)
  kept = pixel_rows.variance_kept(table())
  assert kept.shape == (256,)
  np.testing.assert_allclose(kept[: scale.size], np.cumsum(scale**2) / (scale**2).sum(), atol=1e-9)


def test_faithful_rows_collide_and_deduped_rows_do_not():
  shared = table().shared
  assert TOKENS[0] == ' '
  assert shared[0]
  assert shared[TOKENS.index('\n')]
  assert shared[TOKENS.index('A')]  # Latin and Cyrillic A look alike
  faithful = pixel_rows.glyph_rows(table())
  deduped = pixel_rows.glyph_rows(table(), identity=0.1)
  distinct = lambda rows: len(np.unique(rows, axis=0))
  assert distinct(faithful) <= len(TOKENS) - shared.sum() // 2
  assert distinct(deduped) == len(TOKENS)
  assert (deduped[~shared] == faithful[~shared]).all()
  own = (deduped * faithful).sum(axis=1)[shared]
  assert own.min() > 0.97
  assert own.max() < 1


def test_widths_that_pictures_cannot_give_are_named():
  for dim in (0, 257):
    with pytest.raises(InputError, match=f'16 × 16 pixels give no rows of width {dim}'):
      pixel_rows.glyph_rows(table(), dim)


@pytest.mark.parametrize('width', [16, 64])
def test_random_codes_are_unique_and_repeated(width):
  rows = pixel_rows.random_code_rows(5000, 256, width, seed=1)
  bits = rows[:, :: 256 // width]
  assert set(np.unique(rows)) == {0, 1}
  assert (rows == np.repeat(bits, 256 // width, axis=1)).all()
  assert len(np.unique(bits, axis=0)) == 5000
  assert abs(bits.mean() - 0.5) < 0.02
  assert (rows != pixel_rows.random_code_rows(5000, 256, width, seed=2)).any()


def test_codes_with_hardly_more_values_than_tokens_are_found():
  # 40,000 draws of 25 bits hold some 24 pairs: drawn all anew, one draw in e²⁴ would do.
  codes = pixel_rows.random_code_rows(40_000, 25, 25, seed=0)
  assert len(np.unique(np.packbits(codes.astype(bool), axis=1), axis=0)) == 40_000


def test_id_codes_count_in_binary():
  rows = pixel_rows.id_code_rows(70, 14, 7)
  assert rows[69].tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1]  # 1000101
  for size, dim, width in ((129, 14, 7), (70, 15, 7)):
    with pytest.raises(InputError, match=r'7 bits do not fit .* choose [78] bits or more'):
      pixel_rows.id_code_rows(size, dim, width)


def test_controls_keep_what_they_should():
  rows = pixel_rows.glyph_rows(table(), 24)
  dealt = pixel_rows.shuffled(rows, seed=0)
  assert sorted(map(tuple, dealt)) == sorted(map(tuple, rows))
  assert (dealt != rows).any(axis=1).mean() > 0.9
  gaussian = pixel_rows.gaussian_rows(400, 64, seed=0)
  np.testing.assert_allclose(np.linalg.norm(gaussian, axis=1), 1, atol=1e-6)
  scaled = pixel_rows.with_rms(rows, 0.02)
  assert np.sqrt(np.mean(scaled**2)) == pytest.approx(0.02, rel=1e-5)
  np.testing.assert_allclose(cosines(scaled), cosines(rows), atol=1e-6)
  assert (pixel_rows.unit(np.zeros((2, 3), np.float32)) == 0).all()


# --- the module -----------------------------------------------------------------------------------

ROWS = pixel_rows.gaussian_rows(tiny.V, 16, seed=0)


def experiment(rows=ROWS):
  embedding = FixedRows(tiny.V, 16, lambda seed: rows)
  decoder = Decoder(layers=2, dim=16, heads=2, mlp_dim=32, max_length=tiny.T)
  init_fn, loss_fn = next_token(LanguageModel(embedding, decoder))
  return dataclasses.replace(tiny.make(), init_fn=init_fn, loss_fn=loss_fn, evaluations={})


def train(workdir, steps, mesh=None):
  schedule = optimizer.make_schedule('constant', 1e-2, steps, 0, 1.0)
  return loop.train(
    experiment(),
    optimizer.make_optimizer('adamw', schedule, weight_decay=0.1),
    steps=steps, seed=3, mesh=mesh or sharding.make_mesh({}, jax.devices()[:1]),
    workdir=workdir, log_every=1, checkpoint_every=4,
  )  # fmt: skip


def test_frozen_rows_are_bit_identical_after_training(tmp_path):
  state, history = train(tmp_path, 6)
  after = np.asarray(state['variables']['frozen']['embedding']['table'])
  assert after.tobytes() == ROWS.tobytes()
  losses = tiny.losses(history)
  assert losses[6] < losses[1]
  # The optimiser holds moments of the LM head, none of the frozen rows.
  shapes = [leaf.shape for leaf in jax.tree.leaves(state['optimizer'])]
  assert shapes.count(ROWS.shape) == 2
  # Saved with the rest, they come back from the checkpoint and stay through further steps.
  state, _ = train(tmp_path, 8)
  assert int(state['step']) == 8
  assert np.asarray(state['variables']['frozen']['embedding']['table']).tobytes() == ROWS.tobytes()


def test_frozen_rows_are_sharded_like_a_parameter(tmp_path):
  mesh = sharding.make_mesh({'data': 1, 'fsdp': 4, 'tensor': 2})
  state, _ = train(tmp_path, 2, mesh)
  held = state['variables']['frozen']['embedding']['table']
  assert np.asarray(held).tobytes() == ROWS.tobytes()
  params = state['variables']['params']['embedding']
  assert held.sharding == params['lm_head_table'].sharding
  assert held.sharding.shard_shape(held.shape) == (tiny.V, 4)  # V = 7 does not split


def test_rows_may_be_where_training_starts():
  embedding = FixedRows(tiny.V, 16, lambda seed: ROWS, frozen=False)
  ids = np.array([[tiny.V, 0, 6]], np.int32)
  variables = embedding.init(jax.random.key(0), ids, None, method='encode')
  assert set(variables) == {'params'}
  assert (np.asarray(variables['params']['table']) == ROWS).all()
  loss = lambda v: embedding.apply(v, ids, None, method='encode').sum()
  gradient = np.asarray(jax.grad(loss)(variables)['params']['table'])
  assert gradient.any(axis=1).tolist() == [True, *[False] * 5, True]


def test_another_width_gets_a_trained_map_and_begin_a_vector():
  rows = pixel_rows.gaussian_rows(tiny.V, 24, seed=0)
  embedding = FixedRows(tiny.V, 16, lambda seed: rows)
  ids = np.array([[tiny.V, 0, 6]], np.int32)
  variables = embedding.init(jax.random.key(0), ids, None, method='encode')
  params = variables['params']
  vectors = embedding.apply(variables, ids, None, method='encode')
  np.testing.assert_allclose(vectors[0, 0], params['bos'])
  np.testing.assert_allclose(vectors[0, 1:], rows[[0, 6]] @ params['row_in'], rtol=1e-4)
  hidden = np.random.default_rng(0).standard_normal((1, 3, 16)).astype(np.float32)
  logits = embedding.apply(variables, hidden, None, method='logits')
  nats = embedding.apply(variables, hidden, np.array([[1, 2, 3]]), None, method='token_loss')
  expected = -jax.nn.log_softmax(logits)[0, [0, 1, 2], [1, 2, 3]]
  np.testing.assert_allclose(nats[0], expected, rtol=1e-5)


def test_rows_of_another_vocabulary_are_named():
  wrong = experiment(rows=ROWS[:6])
  batch = next(iter(wrong.batches))
  with pytest.raises(InputError, match=r'shape \(6, 16\) do not fit 7 ids'):
    wrong.init_fn(jax.random.key(0), batch)


def test_replicas_have_rows_and_parameters_of_their_own():
  embedding = FixedRows(tiny.V, 16, lambda seed: pixel_rows.gaussian_rows(tiny.V, 16, seed))
  ids = np.array([[tiny.V, 0]], np.int32)
  init = jax.vmap(lambda key: embedding.init(key, ids, None, method='encode'))
  variables = init(jax.random.split(jax.random.key(0), 3))
  rows = np.asarray(variables['frozen']['table'])
  assert rows.shape == (3, tiny.V, 16)
  assert len(np.unique(rows[:, 0], axis=0)) == 3
  again = init(jax.random.split(jax.random.key(0), 3))
  assert (np.asarray(again['frozen']['table']) == rows).all()
  # All arms of a seed begin with the same LM head, whatever their rows.
  trained = FixedRows(tiny.V, 16, lambda seed: ROWS, frozen=False)
  other = trained.init(jax.random.split(jax.random.key(0), 3)[1], ids, None, method='encode')[
    'params'
  ]
  for name in ('bos', 'lm_head_table'):
    assert (np.asarray(variables['params'][name][1]) == np.asarray(other[name])).all()


def test_no_compiled_program_holds_the_rows():
  rows = pixel_rows.gaussian_rows(tiny.V, 2**15, seed=0)  # 917 kB
  whole = experiment(rows=rows)
  batch = next(iter(whole.batches))
  program = jax.jit(whole.init_fn).lower(jax.random.key(0), batch).as_text()
  assert len(program) < rows.nbytes
  variables = jax.jit(whole.init_fn)(jax.random.key(0), batch)
  step = jax.jit(whole.loss_fn).lower(variables, batch, jax.random.key(0)).as_text()
  assert len(step) < rows.nbytes
