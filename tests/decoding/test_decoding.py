# SPDX-License-Identifier: Apache-2.0
"""Decoding: reading over a cache is reading the whole, and samples follow the distribution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib.data import pipeline
from lib.decoding import constraints, sampling
from lib.decoding.sampling import Sampling
from lib.embeddings.learned import Learned
from lib.embeddings.lexinvariant import Lexinvariant
from lib.embeddings.short_conv import ShortConv
from lib.errors import InputError
from lib.models import positions
from lib.models.decoder import Decoder, LanguageModel
from tests.helpers import weights

V, T, B = 11, 12, 3
KEY = jax.random.key(0)
KINDS = {
  **{scheme: {'position': scheme} for scheme in positions.SCHEMES},
  'preceding': {'embedding': ShortConv(Learned(V, 16, init_std=0.5), 2), 'position': 't5'},
  'lexinvariant': {'embedding': ShortConv(Lexinvariant(V, 16), 1), 'position': 't5'},
  'other parts': {'norm': 'rms', 'gated': True, 'activation': 'relu', 'bias': True},
}


@functools.cache
def make(kind, size=V, **options):
  """A model, its variables, and the embedding's rows for B texts."""
  chosen = KINDS[kind] | options
  embedding = chosen.pop('embedding', None) or Learned(size, 16, init_std=0.5)
  decoder = Decoder(
    **{'layers': 2, 'dim': 16, 'heads': 2, 'mlp_dim': 32, 'init_std': 0.3, 'max_length': 64}
    | chosen
  )
  model = LanguageModel(embedding, decoder)
  batch = pipeline.batch_from_ids(np.zeros((B, T), np.int32), size)
  variables = weights.draw(model.init, KEY, batch, KEY, std=0.5)
  rows = model.apply(variables, method=lambda bound: bound.embedding.sample_rows(KEY, batch))
  return model, variables, rows


@functools.cache
def extending(model):
  """`extend` and the logits after each token, compiled."""

  def extend(bound, *args):
    hidden, cache = bound.extend(*args)
    return bound.embedding.logits(hidden, args[-1]), cache

  return jax.jit(functools.partial(model.apply, method=extend))


def reader(kind):
  """(ids, positions, cache[, mask]) -> logits and cache; and an empty cache of T slots."""
  model, variables, rows = make(kind)
  extend = extending(model)
  read = lambda ids, places, cache, mask=None: extend(variables, ids, places, mask, cache, rows)
  return read, model.decoder.empty_cache(B, T)


def texts(seed=0):
  ids = np.random.default_rng(seed).integers(0, V, (B, T), dtype=np.int32)
  ids[:, 0] = V
  return ids


WHOLE = 32  # ids of a whole pass, filled up with ids that nothing before them sees


@functools.cache
def reading_whole(kind):
  model, variables, rows = make(kind)
  places = np.tile(np.arange(WHOLE), (B, 1))

  def read(bound, ids):
    vectors = bound.embedding.encode(ids, rows)
    return bound.embedding.logits(
      bound.decoder(vectors, jnp.asarray(places), jnp.ones_like(ids))[0], rows
    )

  return jax.jit(functools.partial(model.apply, variables, method=read))


def whole(kind, ids):
  """Logits after each of ids [B, n], without a cache."""
  filled = np.pad(ids, ((0, 0), (0, WHOLE - ids.shape[1])))
  return np.asarray(reading_whole(kind)(filled))[:, : ids.shape[1]]


def chain(start, count):
  """Positions [B, count] from `start` [B] on."""
  return (np.broadcast_to(start, B)[:, None] + np.arange(count)).astype(np.int32)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('parts', [(T,), (1,) * T, (3, 1, 6, 1, 1), (6, 3, 3)], ids=str)
def test_reading_in_parts_is_reading_the_whole(kind, parts):
  read, cache = reader(kind)
  ids, start, found = texts(), 0, []
  for count in parts:
    logits, cache = read(ids[:, start : start + count], chain(start, count), cache)
    found.append(logits)
    start += count
  # Sums of float32 in another order: logits of size 1 differ in the sixth digit.
  np.testing.assert_allclose(np.concatenate(found, axis=1), whole(kind, ids), atol=2e-5, rtol=1e-5)
  assert cache.lengths.tolist() == [T] * B
  np.testing.assert_array_equal(cache.ids, ids)


@pytest.mark.parametrize('kind', KINDS)
def test_texts_side_by_side_are_at_places_of_their_own(kind):
  read, cache = reader(kind)
  ids = texts()
  lengths = np.array([1, 6, 3], np.int32)
  _, cache = read(ids[:, :6], chain(0, 6), cache)
  cache = cache.rollback(lengths)  # what a prefill with padding does
  more = np.take_along_axis(ids, chain(lengths, 6), axis=1)
  logits, _ = read(more, chain(lengths, 6), cache)
  expected = np.take_along_axis(whole(kind, ids), chain(lengths, 6)[..., None], axis=1)
  np.testing.assert_allclose(logits, expected, atol=2e-5, rtol=1e-5)


def tree_mask(lengths, parents):
  """bool [B, N, T]: each draft sees the text and its ancestors; `parents` are drafts or −1."""
  mask = np.zeros((B, len(parents), T), bool)
  for text, length in enumerate(lengths):
    for draft, parent in enumerate(parents):
      if parent < 0:
        mask[text, draft, :length] = True
      else:
        mask[text, draft] = mask[text, parent]
      mask[text, draft, length + draft] = True
  return mask


#        0        two drafts of the next token, 0 and 1; 2 and 3 follow 0; 4 follows 1; 5 follows 3
PARENTS = (-1, -1, 0, 0, 1, 3)
DEPTHS = (0, 0, 1, 1, 1, 2)
PATHS = [(0, 2), (0, 3, 5), (1, 4)]


@pytest.mark.parametrize('kind', KINDS)
def test_a_tree_of_drafts_is_each_of_its_paths_alone(kind):
  read, empty = reader(kind)
  ids, lengths = texts(), np.array([4, 6, 5], np.int32)
  _, cache = read(ids[:, :6], chain(0, 6), empty)
  cache = cache.rollback(lengths)
  drafts = texts(seed=1)[:, 1:7]
  places = (lengths[:, None] + np.array(DEPTHS)[None]).astype(np.int32)
  logits, _ = read(drafts, places, cache, tree_mask(lengths, PARENTS))
  for path in PATHS:
    filled = (*path, 0)[:3]  # all paths are one program; what is after a draft it does not see
    alone, _ = read(drafts[:, filled], chain(lengths, 3), cache)
    np.testing.assert_allclose(logits[:, path], alone[:, : len(path)], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_keeping_a_path_is_having_read_it_alone(kind):
  read, empty = reader(kind)
  ids, lengths = texts(), np.array([3, 5, 4], np.int32)
  _, cache = read(ids[:, :6], chain(0, 6), empty)
  cache = cache.rollback(lengths)
  drafts = texts(seed=1)[:, 1:7]
  places = (lengths[:, None] + np.array(DEPTHS)[None]).astype(np.int32)
  _, longer = read(drafts, places, cache, tree_mask(lengths, PARENTS))
  paths = np.array([(0, 3, 5), (1, 4, -1), (-1, -1, -1)])  # one for each text
  kept = longer.rollback(lengths, np.where(paths < 0, -1, lengths[:, None] + paths))
  assert kept.lengths.tolist() == [6, 7, 4]
  _, alone = read(
    np.take_along_axis(drafts, np.maximum(paths, 0), axis=1), chain(lengths, 3), cache
  )
  alone = alone.rollback(kept.lengths)
  more = texts(seed=2)[:, 1:4]
  found, _ = read(more, chain(kept.lengths, 3), kept)
  expected, _ = read(more, chain(kept.lengths, 3), alone)
  np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-5)
  for text, length in enumerate(kept.lengths):
    for field in ('ids', 'positions'):
      np.testing.assert_array_equal(
        getattr(kept, field)[text, :length], getattr(alone, field)[text, :length]
      )


@pytest.mark.parametrize('kind', KINDS)
def test_after_a_rollback_results_are_those_without_the_tokens(kind):
  read, empty = reader(kind)
  ids, other = texts(), texts(seed=1)
  _, cache = read(ids[:, :6], chain(0, 6), empty)
  expected, _ = read(ids[:, 6:], chain(6, 6), cache)
  _, longer = read(other[:, 6:], chain(6, 6), cache)
  found, _ = read(ids[:, 6:], chain(6, 6), longer.rollback(cache.lengths))
  np.testing.assert_array_equal(found, expected)  # to the bit, at equal shapes


@pytest.mark.parametrize('kind', KINDS)
def test_texts_do_not_mix(kind):
  read, empty = reader(kind)
  ids, other = texts(), texts(seed=1)
  other[1] = ids[1]
  first, cache = read(ids[:, :6], chain(0, 6), empty)
  second, others = read(other[:, :6], chain(0, 6), empty)
  np.testing.assert_array_equal(first[1], second[1])
  again = [read(x[:, 6:], chain(6, 6), c)[0] for x, c in ((ids, cache), (other, others))]
  np.testing.assert_array_equal(again[0][1], again[1][1])
  assert (np.asarray(again[0][0]) != np.asarray(again[1][0])).any()


# --- the distribution -----------------------------------------------------------------------------


def reference(logits, allowed, temperature, top_k, top_p):
  """Probabilities [V] of one draw, by the definitions, in float64."""
  order = sorted(np.flatnonzero(allowed), key=lambda i: (-logits[i], i))
  if temperature == 0:
    return np.eye(len(logits))[order[0]]
  order = order[: top_k or None]
  weights = np.exp((logits[order] - logits[order[0]]).astype(np.float64) / temperature)
  weights /= weights.sum()
  count = next((n for n in range(1, len(order)) if weights[:n].sum() >= top_p), len(order))
  out = np.zeros(len(logits))
  out[order[:count]] = weights[:count] / weights[:count].sum()
  return out


@pytest.mark.parametrize('how', [
  Sampling(), Sampling(0.5), Sampling(0.0), Sampling(top_k=3), Sampling(2.0, 1), Sampling(top_k=90),
  Sampling(top_p=0.6), Sampling(0.7, 4, 0.8), Sampling(1.5, top_p=1e-6), Sampling(1.0, 2, 0.99),
], ids=str)  # fmt: skip
def test_the_distribution_is_the_reference(how):
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(40, 8)).astype(np.float32) * 2
  logits[::4] = np.round(logits[::4])  # ties
  allowed = rng.random((40, 8)) < 0.6
  allowed[:, 5] = True
  allowed[:10] = True
  found = np.exp(sampling.log_probabilities(jnp.asarray(logits), jnp.asarray(allowed), how))
  expected = np.array([reference(*pair, *how) for pair in zip(logits, allowed)])
  np.testing.assert_array_equal(found > 0, expected > 0)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_options_out_of_range_are_named():
  model, variables, _ = make('t5')
  keys = jax.random.split(KEY, 1)
  for how in (Sampling(-1.0), Sampling(np.nan), Sampling(top_k=-1), Sampling(top_p=0.0)):
    with pytest.raises(InputError, match='temperature and top_k must be 0 or more and top_p'):
      sampling.stream(model, variables, [[V]], slots=4, keys=keys, how=how)
  for prompts in ([], [[]]):
    with pytest.raises(InputError, match='at least one prompt, and BOS'):
      sampling.stream(model, variables, prompts, slots=4, keys=keys)
  with pytest.raises(InputError, match='at least one id'):
    constraints.allow([], V, 1)


# --- the loop -------------------------------------------------------------------------------------


def sample(kind, prompts, limit, seed=0, **options):
  model, variables, rows = make(kind)
  keys = options.pop('keys', jax.random.split(jax.random.key(seed), len(prompts)))
  return sampling.sample(model, variables, prompts, limit=limit, keys=keys, rows=rows, **options)


PROMPTS = [[V, 1, 2, 3, 4], [V], [V, 9, 9]]


def likeliest(kind, text, row, count, slots=64, forgotten=0):
  """The ids that a whole forward pass for each of them gives; long texts lose their older half."""
  text, out = list(text), []
  while len(out) < count:
    if len(text) > slots:
      del text[1 : 1 + forgotten]
    logits = whole(kind, np.tile(np.array(text, np.int32), (B, 1)))
    out.append(int(logits[row, -1].argmax()))
    text.append(out[-1])
  return out


@pytest.mark.parametrize('kind', KINDS)
def test_greedy_samples_are_those_of_whole_passes(kind):
  found = sample(kind, PROMPTS, 20, how=sampling.GREEDY)
  for row, (prompt, ids) in enumerate(zip(PROMPTS, found)):
    assert ids.tolist() == likeliest(kind, prompt, row, 20)
  assert len({tuple(ids) for ids in found}) == 3


@pytest.mark.parametrize(('window', 'forgotten'), [(1, 4), (3, 6)])
def test_a_full_cache_is_read_again_from_its_newer_half(window, forgotten):
  model, variables, _ = make('relative')
  prompts = [*PROMPTS[1:], [V, *range(10)]]  # the last is longer than the cache
  keys = jax.random.split(KEY, 3)
  parts = sampling.stream(model, variables, prompts, slots=8, keys=keys, how=sampling.GREEDY,
                          window=window, limit=20)  # fmt: skip
  found = [np.concatenate(ids).tolist() for ids in zip(*parts)]
  assert found == [
    likeliest('relative', prompt, row, 20, 8, forgotten) for row, prompt in enumerate(prompts)
  ]


def test_a_text_does_not_depend_on_the_others():
  keys = jax.random.split(jax.random.key(5), 3)
  first = sample('rotary', PROMPTS, 30, keys=keys, slots=40)
  other = sample('rotary', [[V, 7], PROMPTS[1], [V]], 30, keys=keys[::-1], slots=40)
  assert first[1].tolist() == other[1].tolist()
  assert first[0].tolist() != other[0].tolist()
  [alone] = sample('rotary', [PROMPTS[1]], 30, keys=keys[1:2], slots=40)
  assert alone.tolist() == first[1].tolist()
  assert len({tuple(sample('rotary', [PROMPTS[1]], 30, seed=seed)[0]) for seed in range(4)}) == 4


def test_texts_end_where_their_limit_or_an_end_is():
  endless = sample('t5', PROMPTS, 40, slots=48)
  ends = [int(endless[0][7]), int(endless[1][3])]
  found = sample('t5', PROMPTS, 40, slots=48, ends=ends)
  for ids, through in zip(found, endless):
    place = next((i for i, token in enumerate(through) if token in ends), 39)
    assert ids.tolist() == through[: place + 1].tolist()
  assert min(map(len, found)) < max(map(len, found))
  assert [ids.size for ids in sample('t5', PROMPTS, 0)] == [0, 0, 0]


def test_only_allowed_ids_are_sampled():
  only = constraints.allow([2, 3, 5], V, 3)
  found = sample('t5', PROMPTS, 60, constraint=only)
  assert {int(token) for ids in found for token in ids} == {2, 3, 5}
  # An automaton: 1 or 2 first, then 3 after 1 and 4 after 2, and so on.
  table = np.full((3, V), -1, np.int32)
  table[0, [1, 2]], table[1, 3], table[2, 4] = [1, 2], 0, 0
  found = sample('t5', PROMPTS, 60, constraint=constraints.Constraint(table, np.array([0, 1, 2])))
  for ids, begin in zip(found, ([], [1], [2])):
    both = [*begin, *ids.tolist()]
    assert set(zip(both[::2], both[1::2])) == {(1, 3), (2, 4)}


def test_samples_follow_the_probabilities():
  model = LanguageModel(Learned(4, 16, bias=True), make('t5')[0].decoder)
  variables = jax.jit(model.init)(KEY, pipeline.batch_from_ids(np.zeros((1, 4), np.int32), 4), KEY)
  share = np.array([0.5, 0.3, 0.15, 0.05])
  embedding = jax.tree.map(jnp.zeros_like, variables['params']['embedding'])
  embedding['lm_head_bias'] = jnp.log(share)
  params = {**variables['params'], 'embedding': embedding}
  how = Sampling(0.5, top_k=3)
  found = sampling.sample(model, {'params': params}, [[4]] * 50, limit=100, how=how,
                          keys=jax.random.split(KEY, 50))  # fmt: skip
  counts = np.bincount(np.concatenate(found), minlength=4)
  expected = reference(np.log(share), np.ones(4, bool), *how)
  error = np.sqrt(expected * (1 - expected) / 5000)
  assert (np.abs(counts / 5000 - expected) <= 5 * error).all()
  assert counts[3] == 0
