# SPDX-License-Identifier: Apache-2.0
"""Hierarchies against closed forms and loops, and against the plain decoder.

Causality and single steps of every arm are in the table `causality` of the recipe, which
tests/experiments/test_hierarchy_run.py reads.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import language_model
from lib.embeddings.learned import Learned
from lib.embeddings.lexinvariant import Lexinvariant
from lib.errors import InputError
from lib.language_model import TrainedModel
from lib.models.decoder import Decoder, LanguageModel
from lib.models.hierarchy import (
  Hierarchy,
  ratio_loss,
  select,
  smooth,
  stage_factors,
  straight_through,
)
from lib.models.recurrence import RecurrentDecoder, ages
from lib.models.routers import Cosine, Marked, Seen, Spaces, Stride, spacelike
from lib.parameters import describe_model
from lib.tokenizers import registry
from lib.tokenizers.token_ends import ENDS, TokenEnds
from lib.train import optimizer

DIM = 8
SEGMENTS = jnp.array([[1] * 5 + [2] * 7, [1] * 9 + [0] * 3])


def plain(dim=DIM):
  return Decoder(layers=1, dim=dim, heads=2, mlp_dim=16, position='rotary')


def hierarchy(router=None, **options):
  given = {'inner': plain(), 'room': 1.0} | options
  return Hierarchy(DIM, DIM, router=router or Cosine(DIM), encoder=None, decoder=None, **given)


def test_chunks_are_where_they_begin():
  begins = np.random.default_rng(0).random((6, 20)) < 0.4
  for room in (20, 5):
    found = select(jnp.asarray(begins), room)
    for row, places, real, of_token, dropped in zip(begins, *map(np.asarray, found), strict=True):
      there = np.flatnonzero(row)
      assert places[real].tolist() == there[:room].tolist()
      assert dropped == max(0, len(there) - room)
      newest = [np.searchsorted(there[:room], t, side='right') - 1 for t in range(20)]
      assert of_token.tolist() == newest


def test_smoothing_is_a_loop_forward_and_backward():
  keys = jax.random.split(jax.random.key(0), 4)
  x, weights = jax.random.normal(keys[0], (2, 9, 3)), jax.random.uniform(keys[1], (2, 9))
  before, along = jax.random.normal(keys[2], (2, 3)), jax.random.normal(keys[3], (2, 9, 3))

  def loop(x, weights, before):
    states = []
    for i in range(x.shape[1]):
      before = weights[:, i, None] * x[:, i] + (1 - weights[:, i, None]) * before
      states.append(before)
    return jnp.stack(states, axis=1)

  def scan(x, weights, before):
    join = lambda one, two: (one[0] * two[0], two[0] * one[1] + two[1])
    keep = jnp.broadcast_to(1 - weights[..., None], x.shape)
    decay, states = jax.lax.associative_scan(join, (keep, weights[..., None] * x), axis=1)
    return states + decay * before[:, None]

  grads = lambda f: jax.jit(jax.value_and_grad(lambda *a: (f(*a) * along).sum(), (0, 1, 2)))
  for other in (loop, scan):
    mine, theirs = (grads(f)(x, weights, before) for f in (smooth, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), mine, theirs)


def test_the_ratio_loss_is_its_closed_form():
  for n in (2.0, 5.0):
    for share in np.linspace(0, 1, 6):
      slope = jax.grad(ratio_loss, 1)(float(share), 0.3, n)
      assert slope == pytest.approx(n * (n * share - 1) / (n - 1), abs=1e-5)
    at = lambda share: float(ratio_loss(share, share, n))
    assert at(1 / n) == pytest.approx(1, abs=1e-6)
    assert min(at(1 / n - 0.01), at(1 / n + 0.01)) > 1
    assert jax.grad(ratio_loss, 1)(1 / n, 0.9, n) == pytest.approx(0, abs=1e-5)
  assert ratio_loss(0.5, 0.1, 5.0) < 1  # below 1 where F and G differ


def test_straight_through_has_the_gradient_of_a_product():
  x, c = jax.random.normal(jax.random.key(0), (2, 5)), jnp.full((2, 1), 0.3)
  assert (straight_through(x, c) == x).all()
  along = jax.random.normal(jax.random.key(1), (2, 5))
  of_x, of_c = jax.grad(lambda x, c: (straight_through(x, c) * along).sum(), (0, 1))(x, c)
  np.testing.assert_allclose(of_c, (x * along).sum(axis=1, keepdims=True), rtol=1e-6)
  np.testing.assert_allclose(of_x, along, rtol=1e-6)


def test_routers_know_neighbours_strides_and_spaces():
  x = jnp.array([[[1.0, 0], [2, 0], [0, 1], [0, -3]]])
  before = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
  text = b'To be, or'
  ids = jnp.array([[*text]])
  ids_before = jnp.pad(ids, ((0, 0), (1, 0)))[:, :-1]
  cosine, seen = Cosine(2), Seen(x, before, None, None, ages(jnp.ones((1, 4), int)), None)
  found, _ = cosine.apply(cosine.init(jax.random.key(0), seen), seen)
  np.testing.assert_allclose(found[0, 1:], [0, 0.5, 1], atol=1e-6)  # equal, orthogonal, opposite
  seen = seen._replace(ids=ids, ids_before=ids_before, ages=ages(jnp.ones((1, 9), int)))
  assert Stride(4).apply({}, seen)[0][0].tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 1]
  spaces = Spaces(spacelike(bytes([i]) for i in range(256)))
  assert spaces.apply({}, seen)[0][0].tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 0]


def test_bytes_are_cut_where_subwords_end():
  subwords = registry.train('bpe', [b'the cat and the dog, the cats'] * 9, 280)
  tokenizer = TokenEnds(subwords)
  text = b'the cats, \xe4 dog\n'
  pieces = [subwords.token_bytes(i) for i in subwords.encode(text)]
  assert 1 < len(pieces) < len(text)
  ids = tokenizer.encode(text)
  assert tokenizer.decode(ids) == text
  seen = Seen(None, None, jnp.asarray(ids)[None], None, None, None)
  begins = Marked(ENDS).apply({}, seen)[0][0]
  cuts = np.flatnonzero(begins) + 1
  assert [part.tobytes() for part in np.split(np.frombuffer(text, np.uint8), cuts[:-1])] == pieces
  assert cuts[-1] == len(text)


def test_a_chunk_for_each_token_is_the_plain_decoder():
  x = jax.random.normal(jax.random.key(0), (2, 12, DIM))
  whole = hierarchy(Stride(1), smoothing=False)
  variables = jax.jit(whole.init)(jax.random.key(1), x, ages(SEGMENTS), SEGMENTS)
  assert not np.any(variables['params']['residual']['kernel'])
  mine = jax.jit(lambda v: whole.apply(v, x, ages(SEGMENTS), SEGMENTS)[0])(variables)
  inner = {'params': variables['params']['inner']}
  theirs = jax.jit(lambda v: plain().apply(v, x, ages(SEGMENTS), SEGMENTS)[0])(inner)
  np.testing.assert_array_equal(mine[SEGMENTS > 0], theirs[SEGMENTS > 0])


def test_room_for_more_chunks_changes_nothing_and_a_lack_of_it_is_counted():
  x = jax.random.normal(jax.random.key(0), (2, 12, DIM))
  variables = jax.jit(hierarchy().init)(jax.random.key(1), x, ages(SEGMENTS), SEGMENTS)

  def of(room):
    module = hierarchy(room=room)
    call = lambda v: module.apply(v, x, ages(SEGMENTS), SEGMENTS, mutable='metrics')
    (hidden, _), sown = jax.jit(call)(variables)
    return hidden, {name: float(value) for name, (value,) in sown['metrics'].items()}

  (full, metrics), (same, _), (less, cut) = (of(room) for room in (1.0, 9 / 12, 3 / 12))
  begun = round(metrics['chunks_per_token'] * 21)
  assert metrics['overflow_share'] == 0
  np.testing.assert_allclose(full, same, atol=1e-6)
  assert cut['chunks_per_token'] == metrics['chunks_per_token']
  assert cut['overflow_share'] == pytest.approx((begun - 2 * 3) / begun)
  assert np.isfinite(less).all()


def test_a_model_of_two_stages_is_saved_and_sampled(tmp_path):
  outer = lambda: RecurrentDecoder(1, DIM, 'convolution')
  spaces = Spaces(spacelike(bytes([i]) for i in range(256)))
  within = hierarchy(target=2.0)
  decoder = Hierarchy(DIM, DIM, outer(), spaces, within, None)
  model = LanguageModel(Learned(256, DIM), decoder)
  ones = jnp.ones((1, 8), jnp.int32)
  batch = {'inputs': ones, 'targets': ones, 'segments': ones, 'positions': ages(ones)}
  variables = jax.jit(model.init)(jax.random.key(0), batch, jax.random.key(0))
  variables = {'params': jax.tree.map(lambda x: 3 * x + 0.1, variables['params'])}
  made = TrainedModel(model, variables, registry.train('bytes', [b'a'], 256), 8)
  made.save(tmp_path / 'model')
  again = language_model.load(tmp_path / 'model')
  assert again.fingerprint == made.fingerprint
  with pytest.raises(InputError, match='no layout can express a Hierarchy'):
    again.export(tmp_path / 'export')
  prompts = b'a b', b'c d'
  parts = [*again.generate(prompts, max_bytes=9, temperature=0)]
  for prompt, *text in zip(prompts, *parts, strict=True):
    # Greedy: each byte is the likeliest one after those before it.
    ids = [256, *prompt, *b''.join(text)][:9]
    assert again.logits(ids[:-1])[3:].argmax(axis=-1).tolist() == ids[4:]


def test_a_hierarchy_reads_rows_that_are_sampled():
  model = LanguageModel(Lexinvariant(256, DIM), hierarchy(Marked(ENDS)))
  ones = jnp.ones((2, 8), jnp.int32)
  batch = {'inputs': ones, 'targets': ones, 'segments': ones, 'positions': ages(ones)}
  nats, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), batch, jax.random.key(1))
  assert nats.shape == (2, 8)


def test_flops_are_those_of_each_stage_times_its_chunks():
  cost = lambda **options: (
    describe_model(LanguageModel(Learned(256, DIM), hierarchy(**options)), length=16).flops
  )
  inner = 2 * (4 * DIM**2 + 2 * DIM * 16)
  rest = 2 * 2 * DIM**2 + 2 * DIM**2 + 2 * 256 * DIM  # the router, the residual, the LM head
  for room in (1.0, 0.5, 0.25):
    seen = np.arange(1, 16 * room + 1).mean()  # chunks that a chunk sees
    assert cost(room=room) == rest + room * (inner + 4 * seen * DIM)


def test_stages_learn_at_rates_of_their_own():
  params = {'embedding': {'a': 1.0}, 'decoder': {'inner': {'b': 1.0, 'inner': {'c': 1.0}}}}
  params['decoder']['router'] = {'model': {'d': 1.0}}
  params = jax.tree.map(jnp.asarray, params)
  schedule = optimizer.make_schedule('constant', 0.1, 10, 0, 1.0)
  made = optimizer.make_optimizer('adamw', schedule, factors=stage_factors((3.0, 2.0)))({})
  updates, _ = made.update(params, made.init(params), params)
  found = [round(float(-x / 0.1), 3) for x in jax.tree.leaves(updates)]
  assert found == [2, 2, 0, 3]  # b, c, d, a


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'target': 0.5}, 'target must be above 1'),
    ({'room': 0.0}, 'room must be a share'),
    ({'router': Stride(0)}, 'a stride must be 1 or more'),
    ({'router': Spaces((32,))}, 'a second stage has no ids'),
  ],
)
def test_what_cannot_be_is_refused(options, message):
  x = jnp.zeros((1, 4, DIM))
  ones = jnp.ones((1, 4), jnp.int32)
  with pytest.raises(InputError, match=message):
    jax.eval_shape(hierarchy(**options).init, jax.random.key(0), x, ages(ones), ones)
