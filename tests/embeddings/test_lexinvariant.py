# SPDX-License-Identifier: Apache-2.0
"""Random rows name no symbol: exactly under a coupled renaming, in law under fresh draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lexinvariant.decoders import bare
from lib.embeddings.learned import Learned
from lib.embeddings.lexinvariant import (
  LAWS,
  ROW_SAMPLING,
  AnnealedLexinvariant,
  Lexinvariant,
  SampledRows,
  exchangeable_rows,
  permutations,
)
from lib.embeddings.partial import Interchangeable, PartlyRandom, PermutedIds
from lib.embeddings.short_conv import ShortConv
from lib.errors import InputError
from lib.models.decoder import Decoder, LanguageModel
from lib.models.probe import Deciphering
from lib.parameters import describe_model
from lib.train import optimizer
from tests.helpers import weights

V, B, T, D = 5, 4, 12, 16
KEY = jax.random.key(0)
COMBINATIONS = [
  *((row_sampling, 'gaussian') for row_sampling in ROW_SAMPLING),
  *(('per_sequence', law) for law in LAWS if law != 'gaussian'),
  ('shared', 'orthonormal'),
]


def batch(vocab_size=V, count=B, seed=0):
  targets = np.random.default_rng(seed).integers(0, vocab_size, (count, T)).astype(np.int32)
  ones = np.ones_like(targets)
  return {
    'targets': targets,
    'inputs': np.concatenate([ones[:, :1] * vocab_size, targets[:, :-1]], axis=1),
    'segments': ones,
    'positions': ones.cumsum(1) - 1,
    'bytes': ones,
  }


def model(embedding):
  decoder = Decoder(layers=2, dim=D, heads=2, mlp_dim=32, position='t5', norm='rms', init_std=None)
  return LanguageModel(embedding, decoder)


@functools.cache
def initial(module):
  """Some variables of a model."""
  return weights.draw(module.init, KEY, batch(), KEY)


@functools.cache
def _nats_under(module):
  def run(module, data, draw):
    hidden, _ = module.hidden(data, draw)
    return module.embedding.token_loss(hidden, data['targets'], draw)

  return jax.jit(functools.partial(module.apply, method=run))


def nats_under(module, variables, data, draw):
  return _nats_under(module)(variables, data, draw)


@functools.partial(jax.jit, static_argnums=0)
def drawn(module, variables, data):
  """The rows that a model draws, and all of them as a table for each text."""
  rows = module.apply(variables, method=lambda m: m.embedding.sample_rows(KEY, data))
  return rows, module.apply(variables, method=lambda m: m.embedding.tables(rows))


def renamed(data, names, vocab_size=V):
  full = np.append(names, vocab_size).astype(np.int32)
  return data | {field: full[data[field]] for field in ('inputs', 'targets')}


@pytest.mark.parametrize(('row_sampling', 'law'), COMBINATIONS)
@pytest.mark.parametrize('row_dim', [None, 8])
def test_renaming_ids_and_rows_together_changes_nothing(row_sampling, law, row_dim):
  module = model(Lexinvariant(V, D, row_sampling=row_sampling, law=law, row_dim=row_dim))
  data, names = batch(), np.array([2, 0, 4, 1, 3])
  variables = initial(module)
  rows, tables = drawn(module, variables, data)
  before = np.argsort(names)  # the id that now has this name
  if row_sampling == 'seeded':  # the same rows as arrays
    moved = SampledRows(np.asarray(tables)[:, before], None)
  elif rows.labels is None:
    moved = SampledRows(np.asarray(rows.table)[:, before], None)
  else:
    moved = SampledRows(rows.table, np.asarray(rows.labels)[:, before])
  np.testing.assert_allclose(
    nats_under(module, variables, renamed(data, names), moved),
    nats_under(module, variables, data, rows),
    atol=1e-5,
  )


@pytest.mark.parametrize(('row_sampling', 'law'), COMBINATIONS)
def test_renamed_text_has_the_same_law_over_fresh_draws(row_sampling, law):
  count = 3000
  module = model(Lexinvariant(V, D, row_sampling=row_sampling, law=law))
  data = {field: np.repeat(values, count, axis=0) for field, values in batch(count=1).items()}
  variables, nats = initial(module), jax.jit(module.apply)
  plain = np.asarray(nats(variables, data, jax.random.key(1))).sum(1)
  other = np.asarray(nats(variables, renamed(data, [2, 0, 4, 1, 3]), jax.random.key(2))).sum(1)
  if row_sampling == 'shared':  # one table for all: compare over tables
    draws = jax.random.split(jax.random.key(3), 60)
    small = {field: values[:50] for field, values in data.items()}
    means = lambda d: np.array([np.asarray(nats(variables, d, key)).sum(1).mean() for key in draws])
    plain, other = means(small), means(renamed(small, [2, 0, 4, 1, 3]))
  z = (plain.mean() - other.mean()) / np.hypot(plain.std(), other.std()) * len(plain) ** 0.5
  assert abs(z) < 4


@pytest.mark.parametrize('size', [6, 5000, 2**17])  # pairs; three digits; four
def test_names_are_uniform_permutations(size):
  count = 2**20 // size
  names = np.asarray(permutations(jax.random.key(3), count, size))
  assert (np.sort(names, axis=1) == np.arange(size)).all()
  # An id keeps its name once a sequence on average, and two ids are in either order: all within
  # five standard errors.
  assert np.mean((names == np.arange(size)).sum(1)) == pytest.approx(1, abs=5 / count**0.5)
  pairs = names.reshape(count, size // 2, 2)
  ordered = np.mean(pairs[..., 0] < pairs[..., 1])
  assert ordered == pytest.approx(0.5, abs=2.5 / (count * size / 2) ** 0.5)
  rising = np.corrcoef(names.ravel(), np.tile(np.arange(size), count))[0, 1]
  assert abs(rising) < 5 / (count * size) ** 0.5
  assert (np.diff(names[:2], axis=0) != 0).any()


def test_haar_rows_are_orthogonal_and_exchangeable():
  keys = jax.random.split(KEY, 2000)
  rows = np.asarray(jax.vmap(lambda key: exchangeable_rows(key, 'orthonormal', 6, 8))(keys))
  gram = np.einsum('nvr,nwr->nvw', rows, rows)
  np.testing.assert_allclose(gram, np.broadcast_to(8 * np.eye(6), gram.shape), atol=1e-4)
  positive = (rows > 0).mean(axis=0)  # LAPACK's own columns are negative on the diagonal
  assert np.abs(positive - 0.5).max() < 5 * 0.5 / 2000**0.5


@pytest.mark.parametrize('law', LAWS)
def test_entries_have_variance_one(law):
  keys = jax.random.split(KEY, 2000)
  rows = np.asarray(jax.vmap(lambda key: exchangeable_rows(key, law, 6, 8))(keys))
  assert abs((rows**2).mean() - 1) < 0.02
  assert abs(rows.mean()) < 0.02


@pytest.mark.parametrize('row_sampling', ROW_SAMPLING)
def test_no_parameter_has_a_vocabulary_axis(row_sampling):
  small = model(Lexinvariant(V, D, row_sampling=row_sampling))
  large = model(Lexinvariant(131, D, row_sampling=row_sampling))
  nats = jax.jit(large.apply)(initial(small), batch(131), KEY)  # the same trained parameters
  assert np.isfinite(nats).all()
  shapes = lambda module, data: jax.tree.map(jnp.shape, jax.eval_shape(module.init, KEY, data, KEY))
  assert shapes(small, batch()) == shapes(large, batch(131))


@pytest.mark.parametrize(
  'embedding',
  [
    Lexinvariant(V, D),
    Lexinvariant(V, D, row_sampling='per_sequence', row_dim=8, logit_scale='vocabulary'),
    Lexinvariant(V, D, row_sampling='seeded'),
    Learned(V, D, init_std=1.0, logit_scale=D**-0.5),
    PermutedIds(Learned(V, D)),
    PartlyRandom(V, D),
    Interchangeable(V, D),
    ShortConv(Lexinvariant(V, D), 2),
  ],
  ids=lambda e: type(e).__name__,
)
def test_nats_are_those_of_the_logits_under_one_draw(embedding):
  module, data = model(embedding), batch() | {'hidden_probability': np.float32(0.5)}
  variables = weights.draw(module.init, KEY, data, KEY)

  @jax.jit
  def both(variables):
    log_p = jax.nn.log_softmax(module.apply(variables, data, KEY, method='logits'))
    picked = jnp.take_along_axis(log_p, data['targets'][..., None], axis=-1)[..., 0]
    return picked, module.apply(variables, data, KEY)

  picked, nats = both(variables)
  if isinstance(embedding, PermutedIds):  # two ids may share a new name: both have its logit
    rows = module.apply(variables, method=lambda m: m.embedding.sample_rows(KEY, data))
    bijective = np.array([len(set(row)) == V for row in np.asarray(rows.labels)])
    picked, nats = picked[bijective], nats[bijective]
    assert len(picked)
  np.testing.assert_allclose(nats, -picked, atol=1e-4)


@pytest.mark.parametrize('row_sampling', ROW_SAMPLING)
def test_annealing_ends_at_plain_random_rows(row_sampling):
  data = batch()
  annealed = model(AnnealedLexinvariant(V, D, row_sampling=row_sampling))
  plain = model(Lexinvariant(V, D, row_sampling=row_sampling))
  variables = initial(annealed)
  without = bare({'params': {'model': variables['params']}})
  assert 'annealed_table' not in without['params']['embedding']
  of_rows, _ = jax.random.split(jax.random.key(5))  # the other is of the mixture
  expected = jax.jit(plain.apply)(without, data, of_rows)
  for last in (data, data | {'revealed': 0.0}):
    actual = jax.jit(annealed.apply)(variables, last, jax.random.key(5))
    np.testing.assert_allclose(actual, expected, atol=1e-5)
  loss = lambda p, c: annealed.apply({'params': p}, data | {'revealed': c}, KEY).sum()
  gradient = jax.jit(jax.grad(loss))
  slope = lambda c: gradient(variables['params'], c)['embedding']['annealed_table']
  assert np.abs(slope(0.5)).max() > 1e-3
  assert not np.any(slope(0.0))


def test_annealed_rows_reveal_their_symbol_by_the_bound():
  data = {'inputs': np.zeros((4000, 3), np.int32)}
  module = AnnealedLexinvariant(V, D, row_sampling='per_sequence')
  variables = module.init(KEY, KEY, data, method='sample_rows')
  sampled = lambda c: module.apply(variables, KEY, data | {'revealed': c}, method='sample_rows')
  table = variables['params']['annealed_table']
  table = table / np.sqrt(np.mean(table**2, axis=-1, keepdims=True))
  for bound in (0.0, 0.4, 0.8):
    rows = np.asarray(sampled(bound).table)
    share = np.einsum('bvr,vr->bv', rows, table) / D
    assert share.mean() == pytest.approx(bound / 2, abs=0.03)  # the mean of a uniform c
    assert np.mean(rows**2) == pytest.approx(1, abs=0.05)  # no norm tells the level


def test_permuted_ids_per_type_rename_throughout_and_per_occurrence_one_by_one():
  data = batch()
  inner = Learned(V, D, init_std=1.0)
  for p in (0.0, 1.0):
    module, data = (
      model(PermutedIds(inner)),
      data | {'hidden_probability': np.full(B, p, np.float32)},
    )
    variables = jax.jit(module.init)(KEY, data, KEY)
    rows = module.apply(variables, method=lambda m: m.embedding.sample_rows(KEY, data))
    assert all(sorted(row) == list(range(V)) for row in np.asarray(rows.labels))
    if p == 0:
      plain = {
        'params': variables['params'] | {'embedding': variables['params']['embedding']['inner']}
      }
      expected = model(inner).apply(plain, data, KEY)
      np.testing.assert_allclose(module.apply(variables, data, KEY), expected, atol=1e-6)
  data['hidden_probability'] = np.linspace(0.2, 0.8, B, dtype=np.float32)
  module = PermutedIds(inner, per='occurrence')
  nothing = module.init(KEY, KEY, data, method='sample_rows')
  rows = module.apply(nothing, KEY, data, method='sample_rows')
  assert 0.2 < np.asarray(rows.relabelled).mean() < 0.8
  # A target that is renamed is renamed as the next position's input too.
  variables = module.init(KEY, jnp.asarray(data['inputs']), rows, method='encode')
  table = variables['params']['inner']['table']
  vectors = module.apply(variables, jnp.asarray(data['inputs']), rows, method='encode')
  names = np.take_along_axis(np.asarray(rows.labels), data['targets'], axis=1)
  bears = np.where(np.asarray(rows.relabelled)[:, 1 : T + 1], names, data['targets'])
  np.testing.assert_allclose(vectors[:, 1:], np.asarray(table)[bears[:, :-1]], atol=1e-6)
  bad = PermutedIds(inner, per='word')
  with pytest.raises(InputError, match="per='word' is not one of type, occurrence"):
    bad.init(KEY, KEY, data, method='sample_rows')


def test_interchangeable_rows_share_a_half_and_have_one_norm():
  module, data = Interchangeable(V, D), batch(count=64) | {'hidden_probability': 0.5}
  variables = module.init(KEY, KEY, data, method='sample_rows')
  rows = np.asarray(module.apply(variables, KEY, data, method='sample_rows').table)
  np.testing.assert_allclose((rows**2).mean(-1), 1, atol=1e-4)
  chosen = np.abs(rows[..., D // 2 :]).max(-1) > 0
  assert 0.3 < chosen.mean() < 0.7
  shared = rows[chosen][:, : D // 2]
  direction = shared / np.linalg.norm(shared, axis=1, keepdims=True)
  np.testing.assert_allclose(direction, np.broadcast_to(direction[:1], direction.shape), atol=1e-4)


def test_only_earlier_symbols_are_mixed_in_and_none_is_identified():
  module, data = model(ShortConv(Lexinvariant(V, D), 2)), batch()
  variables = initial(module)
  encode = lambda ids, draw: module.apply(
    variables, ids, draw, method=lambda m, *given: m.embedding.encode(*given)
  )
  rows = module.apply(variables, method=lambda m: m.embedding.sample_rows(KEY, data))
  plain = encode(data['inputs'], rows)
  other = data['inputs'].copy()
  other[:, 5] = (other[:, 5] + 1) % V
  moved = np.abs(encode(other, rows) - plain).max(axis=(0, 2)) > 1e-5
  assert np.flatnonzero(moved).tolist() == [5, 6, 7]
  names = np.array([2, 0, 4, 1, 3])
  coupled = SampledRows(rows.table, rows.labels[:, np.argsort(names)])
  np.testing.assert_allclose(
    nats_under(module, variables, renamed(data, names), coupled),
    nats_under(module, variables, data, rows),
    atol=1e-5,
  )


def test_the_taught_model_has_the_nats_of_the_model():
  data = batch()
  inner = model(Lexinvariant(V, D))
  taught = Deciphering(inner, layers=2)
  variables = initial(taught)
  nats, sown = jax.jit(functools.partial(taught.apply, mutable='losses'))(variables, data, KEY)
  assert sown['losses']['decipher'][0] > 0
  alone = jax.jit(inner.apply)({'params': variables['params']['model']}, data, KEY)
  np.testing.assert_allclose(nats, alone, atol=1e-5)


def test_muon_orthogonalises_the_blocks_matrices_and_only_those():
  module, data = model(Lexinvariant(V, D)), batch()
  params = initial(module)['params']
  declared = describe_model(module).declared
  views = optimizer.matrices(declared, params)
  blocks = views['decoder']['blocks']
  for kind, (reduced, out) in {
    'query': ((1,), (2, 3)), 'out': ((1, 2), (3,)), 'up': ((1,), (2,)), 'down': ((1,), (2,)),
  }.items():  # fmt: skip
    assert (blocks[kind]['kernel'].reduction_axis, blocks[kind]['kernel'].output_axis) == (
      reduced, out,
    )  # fmt: skip
  assert views['embedding']['input_scale'] is None
  chain = optimizer.make_optimizer('muon', lambda step: 0.1)(declared)
  gradient = jax.jit(module.init)(jax.random.key(1), data, KEY)['params']
  updates, _ = jax.jit(chain.update)(gradient, chain.init(params), params)
  up = np.asarray(updates['decoder']['blocks']['up']['kernel'])[0]  # D × 32
  scale = np.linalg.svd(up, compute_uv=False)
  assert scale.max() / scale.min() < 3  # of a random matrix about 6


def test_impossible_rows_are_refused():
  with pytest.raises(InputError, match='9 symbols cannot have orthonormal rows of width 8'):
    exchangeable_rows(KEY, 'orthonormal', 9, 8)
  with pytest.raises(InputError, match="law 'cauchy' of random rows is not one of gaussian"):
    exchangeable_rows(KEY, 'cauchy', 4, 8)
  with pytest.raises(InputError, match="rows from a seed have no law 'orthonormal'"):
    model(Lexinvariant(V, D, row_sampling='seeded', law='orthonormal')).init(KEY, batch(), KEY)
  with pytest.raises(InputError, match="row_sampling='each' is not one of per_sequence"):
    model(Lexinvariant(V, D, row_sampling='each')).init(KEY, batch(), KEY)
