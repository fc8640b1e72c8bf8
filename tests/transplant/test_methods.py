# SPDX-License-Identifier: Apache-2.0
"""Transplants of tables: exact properties of every method, and naive forms of what is fast."""

import dataclasses
import functools
import json
import pathlib
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, sparse

from lib.embeddings.table_pairs import Tables
from lib.errors import InputError
from lib.tokenizers import registry
from lib.tokenizers.base import Dictionary
from lib.tokenizers.characters import Characters
from lib.tokenizers.foreign import Foreign
from lib.transplant import (
  hull,
  linear,
  methods,
  neighbours,
  pieces,
  sparse_codes,
  transplant,
  vectors,
)
from lib.transplant.methods import METHODS, Problem

FIXTURES = pathlib.Path(__file__).parents[1] / 'fixtures/hf'
RNG = np.random.default_rng(0)
BYTES = [bytes([i]) for i in range(256)]
WORDS = [bytes(RNG.integers(97, 103, RNG.integers(2, 7)).tolist()) for _ in range(60)]
TEXTS = [b' '.join(WORDS[i] for i in np.minimum(RNG.zipf(1.4, 300), 60) - 1) for _ in range(6)]
DIM = 12


def tables(size, dim=DIM, seed=0, bias=True, tied=False):
  draw = np.random.default_rng(seed).normal(0.1, 1, (3, size, dim)).astype(np.float32)
  return Tables(draw[0], draw[0] if tied else draw[1], draw[2, :, 0] if bias else None)


@pytest.fixture(scope='module')
def both():
  return registry.train('bpe', TEXTS, 300), registry.train('bpe', TEXTS[:2], 340)


@functools.cache
def seen(old, new):
  return vectors.of_text(old, new, TEXTS, 20)


def given_all(old, new, name, **more):
  donor = tables(new.vocab_size, DIM - 1, seed=5)
  name = name + '4' * ('omp' in name)
  given = dict(vectors_of=seen(old, new), donor=donor, texts=TEXTS) | more
  return transplant(tables(old.vocab_size), old, new, name, **given)


@pytest.mark.parametrize('name', METHODS)
def test_the_old_tokenizer_gives_the_old_tables_bit_by_bit(both, name):
  before, made = tables(300), given_all(both[0], both[0], name)
  for one, other in zip(before, made.tables, strict=True):
    assert one.tobytes() == other.tobytes()
  assert made.report['exact'] == 300


@pytest.mark.parametrize('name', METHODS)
def test_shared_pieces_keep_their_rows_and_all_rows_are_counted(both, name):
  old, new = both
  before, made = tables(300), given_all(old, new, name)
  place = {piece: i for i, piece in enumerate(old.pieces)}
  for i, piece in enumerate(new.pieces):
    if piece in place:
      assert (made.tables.input[i] == before.input[place[piece]]).all()
      assert (made.tables.output[i] == before.output[place[piece]]).all()
      assert made.tables.bias[i] == before.bias[place[piece]]
  report = made.report
  assert sum(report.values()) == new.vocab_size == len(made.tables.input)
  assert report['exact'] == sum(piece in place for piece in new.pieces) < new.vocab_size
  assert all(np.isfinite(array).all() for array in made.tables)


@pytest.mark.parametrize('name', sorted({*METHODS} - {'hull'}))  # whose negatives are random ids
def test_the_order_of_the_new_ids_does_not_matter_and_tied_stays_tied(both, name):
  old, new = both
  order = np.random.default_rng(1).permutation(new.vocab_size)
  shuffled = Dictionary([new.pieces[i] for i in order])
  aux = seen(old, new)
  donor, before = tables(new.vocab_size, DIM - 1, seed=5, tied=True), tables(300, tied=True)
  name = name + '4' * ('omp' in name)
  one = transplant(before, old, new, name, vectors_of=aux, donor=donor, texts=TEXTS)
  moved = Tables(donor.input[order], donor.output[order], donor.bias[order])
  other = transplant(
    before, old, shuffled, name, vectors_of=(aux[0], aux[1][order]), donor=moved, texts=TEXTS
  )
  np.testing.assert_allclose(one.tables.input[order], other.tables.input, atol=1e-4)
  assert (one.tables.input == one.tables.output).all()


CONVEX = ('mean', 'parts', 'parts_by_length', 'focus', 'wechsel', 'tokenadapt_local',
          'tokenadapt_global', 'tokenadapt', 'hull', 'donor_neighbours')  # fmt: skip


@pytest.mark.parametrize('name', CONVEX)
def test_these_methods_stay_in_the_hull_of_the_old_rows(both, name):
  # Weights of a sum of rows sum to 1 and are no less than 0: with the unit rows the weights appear.
  old, new = both
  unit = np.eye(300, dtype=np.float32)
  aux = seen(old, new)
  donor = tables(new.vocab_size)
  found = transplant(
    Tables(unit, unit), old, new, name, vectors_of=aux, donor=donor, texts=TEXTS[:1]
  )
  weights = found.tables.input[found.kinds != 4]
  assert weights.min() >= 0
  np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
  # Hull theorem: no hidden state prefers a new row to all old ones.
  rows = tables(300).output
  made = transplant(
    Tables(rows, rows), old, new, name, vectors_of=aux, donor=donor, texts=TEXTS[:1]
  )
  hidden = np.random.default_rng(2).normal(size=(500, DIM))
  new_rows = made.tables.output[made.kinds != 4].astype(np.float64)
  assert (hidden @ new_rows.T).max(axis=1).max() > 0
  assert ((hidden @ new_rows.T).max(axis=1) <= (hidden @ rows.T).max(axis=1) + 1e-5).all()


def test_rows_outside_of_the_hull_break_the_theorem(both):
  made = given_all(*both, 'gaussian')
  hidden = np.random.default_rng(2).normal(size=(500, DIM))
  new = made.tables.output[made.kinds == 3]
  assert ((hidden @ new.T).max(axis=1) > (hidden @ tables(300).output.T).max(axis=1)).any()


@pytest.mark.parametrize('name', ['parts', 'parts_by_length', 'tokenadapt_local'])
def test_a_piece_of_one_part_is_a_copy_and_the_others_are_sums_by_hand(name):
  old = Dictionary([*BYTES, b'ab', b'abc'], 'minimal')
  new = Dictionary([*BYTES, b'ab', b'abab', b'abcab', b'ab'])
  before = tables(258)
  rng = np.random.default_rng(0)
  aux = rng.normal(size=(258, 5)), rng.normal(size=(260, 5))
  made = transplant(before, old, new, name, vectors_of=aux).tables
  assert (made.input[256] == before.input[256]).all()
  assert (made.input[259] == before.input[256]).all()  # the second of equal pieces
  assert (made.output[259] == before.output[256]).all()
  np.testing.assert_allclose(made.input[257], before.input[256], rtol=1e-6)
  share = {'parts': 0.5, 'parts_by_length': 0.6}.get(name)
  if share is None:  # the formula of the published code
    cosines = [aux[0][i] @ aux[1][258] / np.linalg.norm(aux[0][i]) / np.linalg.norm(aux[1][258])
               for i in (257, 256)]  # fmt: skip
    soft = np.exp(cosines) / np.exp(cosines).sum()
    powers = np.exp((soft + np.array([0.6, 0.4])) / 2 / 0.3)
    share = (powers / powers.sum())[0]
  expected = share * before.input[257] + (1 - share) * before.input[256]
  np.testing.assert_allclose(made.input[258], expected, rtol=1e-4)


def test_spaces_that_are_turned_give_the_same_rows(both):
  old, new = both
  rng = np.random.default_rng(3)
  turn = linalg.qr(rng.normal(size=(DIM - 1, DIM - 1)))[0].astype(np.float32)
  aux = [rng.normal(size=(one.vocab_size, DIM - 1)).astype(np.float32) for one in both]
  turned = [one @ turn for one in aux]
  donor = tables(new.vocab_size, DIM - 1, seed=5, bias=False)
  moved = Tables(donor.input @ turn, donor.output @ turn)
  before = tables(300, bias=False)
  for name, method in METHODS.items():
    if method.needs:
      name += '4' * ('omp' in name)
      one = transplant(before, old, new, name, vectors_of=aux, donor=donor, texts=TEXTS)
      other = transplant(before, old, new, name, vectors_of=turned, donor=moved, texts=TEXTS)
      np.testing.assert_allclose(one.tables.input, other.tables.input, atol=2e-4, err_msg=name)


def test_wechsel_of_equal_spaces_is_the_identity_in_the_limit(both):
  old, _ = both
  before, aux = tables(300), np.random.default_rng(0).normal(size=(300, 40))
  scores, found = neighbours.top_k(*[neighbours.normalised(aux)] * 2, 10)
  weights = neighbours.softmax(scores, 1e-4)
  rows = np.einsum('nk,nkd->nd', weights, before.input[found])
  np.testing.assert_allclose(rows, before.input, atol=1e-6)
  made = transplant(before, old, old, 'wechsel', vectors_of=(aux, aux), copy_exact=False)
  assert (made.tables.input != before.input).any()
  assert made.report['approximated'] == 300
  aux[:50] = 0  # of these nothing is known, so that they keep their rows
  made = transplant(before, old, old, 'wechsel', vectors_of=(aux, aux), copy_exact=False)
  assert (made.tables.input[:50] == before.input[:50]).all()
  assert made.report == dict(exact=50, special=0, parts=0, approximated=250, fallback=0)


def naive_omp(target, atoms, k, normalise):
  chosen, left, coefficients = [], target, np.zeros(0)
  lengths = np.linalg.norm(atoms, axis=1) if normalise else np.ones(len(atoms))
  for _ in range(k):
    products = np.abs(atoms @ left) / lengths
    products[chosen] = -1
    chosen.append(int(products.argmax()))
    coefficients = np.linalg.lstsq(atoms[chosen].T, target, rcond=None)[0]
    left = target - atoms[chosen].T @ coefficients
  found = np.zeros(len(atoms))
  found[chosen] = coefficients
  return found, left


@pytest.mark.parametrize('normalise', [False, True])
@pytest.mark.parametrize('kept', [2**20, 30])  # rows of products in memory: all, and few
def test_matching_pursuit_is_that_of_a_naive_solver(normalise, kept, monkeypatch):
  monkeypatch.setattr(sparse_codes, 'MEMORY', kept * 50 * 8)
  rng = np.random.default_rng(0)
  atoms, targets = rng.normal(size=(50, 16)), rng.normal(size=(100, 16))
  last = np.linalg.norm(targets, axis=1)
  for k in (1, 5, 12):
    found = sparse_codes.omp(targets, atoms, k, normalise).toarray()
    left = targets - found @ atoms
    for target, own, rest in zip(targets, found, left):
      expected, expected_rest = naive_omp(target, atoms, k, normalise)
      np.testing.assert_allclose(own, expected, atol=1e-9)
      np.testing.assert_allclose(rest, expected_rest, atol=1e-9)
      assert np.abs(atoms[own != 0] @ rest).max() < 1e-9
    assert (np.linalg.norm(left, axis=1) <= last + 1e-12).all()
    last = np.linalg.norm(left, axis=1)


def test_matching_pursuit_recovers_what_is_in_the_span_and_stops_there():
  rng = np.random.default_rng(1)
  atoms = np.concatenate([linalg.qr(rng.normal(size=(16, 16)))[0]] * 2).astype(np.float32)
  truth = np.zeros((40, 32), np.float32)
  for row in truth:
    row[rng.choice(16, 5, replace=False)] = rng.normal(size=5)
  found = sparse_codes.omp(truth @ atoms, atoms, 12).toarray()
  np.testing.assert_allclose(found, truth, atol=1e-5)
  assert ((found != 0).sum(axis=1) == 5).all()
  # Linear covariance: whatever map made the base of the donor, it is applied to the new rows.
  base = atoms @ rng.normal(size=(16, 9)).astype(np.float32)
  np.testing.assert_allclose(found @ base, truth @ base, atol=1e-4)
  assert not sparse_codes.omp(np.zeros((2, 16), np.float32), atoms, 3).nnz


@pytest.mark.parametrize('name', ['omp11', 'ridge', 'procrustes'])
def test_a_linear_donor_gives_the_rows_that_it_was_made_from(both, name):
  old, new = both
  rng = np.random.default_rng(0)
  rotation = linalg.qr(rng.normal(size=(DIM, DIM - 1)), mode='economic')[0].T.astype(np.float32)
  donor = tables(new.vocab_size, DIM - 1, bias=False)
  truth = donor.input @ rotation, donor.output @ rotation
  matched = pieces.match(old, new)
  before = tables(300, bias=False)
  for array, true in zip(before, truth):
    array[matched[matched >= 0]] = true[matched >= 0]
  made = transplant(before, old, new, name, donor=donor).tables
  np.testing.assert_allclose(made.input, truth[0], atol=2e-3)
  np.testing.assert_allclose(made.output, truth[1], atol=2e-3)


def test_linear_maps_are_those_of_scipy_and_of_leaving_out():
  rng = np.random.default_rng(0)
  source, target = rng.normal(size=(30, 6)), rng.normal(size=(30, 6))
  expected, _ = linalg.orthogonal_procrustes(source, target)
  np.testing.assert_allclose(linear.procrustes(source, target), expected, atol=1e-12)
  errors = []
  for penalty in linear.PENALTIES:
    error = 0.0
    for out in range(30):
      keep = np.arange(30) != out
      center, goal = source[keep].mean(axis=0), target[keep].mean(axis=0)
      x, y = source[keep] - center, target[keep] - goal
      unit = penalty * np.mean(np.linalg.svd(source - source.mean(axis=0))[1] ** 2)
      weights = np.linalg.solve(x.T @ x + unit * np.eye(6), x.T @ y)
      error += (((source[out] - center) @ weights + goal - target[out]) ** 2).sum()
    errors.append(error)
  unit = linear.PENALTIES[np.argmin(errors)] * np.mean(
    np.linalg.svd(source - source.mean(axis=0))[1] ** 2
  )
  x, y = source - source.mean(axis=0), target - target.mean(axis=0)
  points = rng.normal(size=(4, 6))
  weights = np.linalg.solve(x.T @ x + unit * np.eye(6), x.T @ y)
  expected = (points - source.mean(axis=0)) @ weights + target.mean(axis=0)
  np.testing.assert_allclose(linear.ridge(source, target, points), expected, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 9), st.integers(0, 99))
def test_blocked_neighbours_are_those_of_a_full_sort(queries, keys, k, seed):
  rng = np.random.default_rng(seed)
  one, other = rng.integers(-3, 4, (queries, 3)) * 1.0, rng.integers(-3, 4, (keys, 3)) * 1.0
  blocks = neighbours.QUERIES, neighbours.KEYS
  neighbours.QUERIES, neighbours.KEYS = 7, 5
  scores, found = neighbours.top_k(one, other, k)
  neighbours.QUERIES, neighbours.KEYS = blocks
  products = one @ other.T
  expected = np.argsort(-products, axis=1, kind='stable')[:, :k]
  assert found.tolist() == expected.tolist()
  assert (scores == np.take_along_axis(products, expected, axis=1)).all()


def test_sparsemax_is_the_projection_and_takes_what_it_needs():
  rng = np.random.default_rng(0)
  keys = neighbours.normalised(rng.normal(size=(700, 4)) * 0.01 + [1, 0, 0, 0])  # all alike
  queries = neighbours.normalised(rng.normal(size=(20, 4)))
  weights, found = neighbours.sparsemax_top(queries, keys)
  for query, own, places in zip(queries, weights, found):
    scores = keys @ query
    low, high = scores.min() - 1, scores.max()
    for _ in range(100):  # the threshold at which the rest sums to 1
      middle = (low + high) / 2
      low, high = (middle, high) if np.maximum(scores - middle, 0).sum() > 1 else (low, middle)
    dense = np.zeros(700)
    np.add.at(dense, places, own)
    np.testing.assert_allclose(dense, np.maximum(scores - low, 0), atol=1e-5)
  assert (weights > 0).sum(axis=1).max() > 64


def test_multivariate_rows_are_near_the_mean():
  old = Dictionary(BYTES)
  new = Dictionary([*BYTES, *(bytes([97, i, j]) for i in range(50) for j in range(60))])
  before = tables(256)
  made = transplant(before, old, new, 'multivariate').tables.input[256:].astype(np.float64)
  apart = ((made - before.input.mean(axis=0, dtype=np.float64)) ** 2).sum(axis=1).mean()
  assert apart == pytest.approx(1e-5 * np.trace(np.cov(before.input.T, bias=True)), rel=0.05)
  for name, spread in (('random', 1), ('gaussian', before.input.std(axis=0).mean())):
    drawn = transplant(before, old, new, name).tables.input[256:]
    assert drawn.std() == pytest.approx(spread, rel=0.05)
  again = transplant(before, old, new, 'random', seed=1).tables.input[256:]
  assert abs(np.corrcoef(transplant(before, old, new, 'random').tables.input[256:].ravel(),
                         again.ravel())[0, 1]) < 0.05  # fmt: skip


def test_vectors_of_equal_pieces_are_equal_and_of_unseen_ones_zero(both):
  old, new = both
  one, other = seen(old, new)
  matched = pieces.match(old, new)
  assert (other[matched >= 0] == one[matched[matched >= 0]]).all()
  met = {piece for text in TEXTS for piece in map(old.pieces.__getitem__, old.encode(text))}
  unmet = [i for i, piece in enumerate(old.pieces) if piece not in met | set(new.pieces)]
  assert not one[unmet].any()
  bytes_unmet = [i for i, piece in enumerate(old.pieces[:256]) if piece not in b''.join(TEXTS)]
  assert bytes_unmet
  assert not one[bytes_unmet].any()
  with pytest.raises(InputError, match='text of two tokens'):
    vectors.of_text(old, new, [b'a'])


def test_contexts_are_the_old_tokens_around_a_piece():
  # ab|c|ab|c seen by old tokens a b c, WINDOW cut to what there is.
  places = vectors._around(np.array([2, 1, 2]), np.array([1, 1, 1, 1, 1]))
  assert places[0].tolist() == [-1] * 5 + [2, 3, 4, -1, -1]
  assert places[1].tolist() == [1, 0, -1, -1, -1, 3, 4, -1, -1, -1]
  assert places[2].tolist() == [2, 1, 0, -1, -1] + [-1] * 5
  straddling = vectors._around(np.array([1, 3]), np.array([2, 1, 1]))
  assert straddling[0].tolist() == [-1] * 5 + [1, 2, -1, -1, -1]
  assert straddling[1].tolist() == [-1] * 10


def test_the_weights_of_the_hull_are_trained_at_both_ends_and_of_the_largest():
  start = sparse.csr_array([[0.1, 0.6, 0.3, 0], [0, 0, 0, 0], [0, 0, 0, 1.0]])
  values, columns = hull.padded(start, 2)
  np.testing.assert_allclose(values, [[0.6, 0.3], [0, 0], [1, 0]], rtol=1e-6)
  assert columns[0].tolist() == [1, 2]
  ids = np.array([0, 1, 2, 1, 0, 3, 3, 3, 3, 3, 3, 0])
  is_made = np.array([True, False, False, False])
  centers, contexts = hull.pairs([ids], is_made, np.random.default_rng(0))
  assert (is_made[centers] | is_made[contexts]).all()
  within = {(a, b) for i, a in enumerate(ids) for b in ids[max(0, i - 5) : i + 6]}
  assert set(zip(centers.tolist(), contexts.tolist())) <= within
  table = np.eye(40, dtype=np.float32)
  place, matched = np.full(40, -1), np.arange(40)
  place[0], matched[0] = 0, -1
  start = sparse.csr_array(([0.3, 0.3, 0.4], ([0, 0, 0], [1, 2, 3])), shape=(1, 40))
  texts = [np.array([0, 1] * 60), np.tile(np.arange(2, 40), 20)]  # the new id stands next to 1
  one, other = hull.train(start, 4, (table, table.copy()), place, matched, texts, 0)
  for weights in (one, other):
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    assert weights.toarray()[0].argmax() == 1
  tied, same = hull.train(start, 4, (table, table), place, matched, texts, 0)
  assert (tied != same).nnz == 0


def test_special_tokens_match_by_name_and_never_text():
  class Special(Dictionary):
    special_tokens = types.MappingProxyType({0: '<s>'})

  old = Special([b'<s>', *BYTES, b'<s>'])
  new = Dictionary([*BYTES, b'<s>'])
  new_special = Special([b'', *BYTES])
  before = tables(258)
  made = transplant(before, old, new, 'parts')
  assert (made.tables.input[256] == before.input[257]).all()
  made = transplant(before, old, new_special, 'parts')
  assert (made.tables.input[0] == before.input[0]).all()
  assert made.report == dict(exact=256, special=1, parts=0, approximated=0, fallback=0)
  other = Special([b'', *BYTES])
  other.special_tokens = {0: '<pad>'}
  for name in METHODS:
    name += '4' * ('omp' in name)
    found = transplant(
      before, old, other, name, vectors_of=seen(old, new), donor=tables(257), texts=TEXTS
    )
    assert np.isfinite(found.tables.input).all()


def lowercase():
  rules = json.loads((FIXTURES / 'llama/tokenizer.json').read_text())
  return Foreign(json.dumps(rules | {'normalizer': {'type': 'Lowercase'}}).encode(), '.json')


def test_what_cannot_be_transplanted_is_named(both):
  old, new = both
  before = tables(300)
  lossy = lowercase()
  for pair, name, more, message in (
    ((old, lossy), 'parts', {}, 'the new tokenizer must be lossless'),
    ((None, new), 'parts', {}, 'the old tokenizer must be lossless.*got none'),
    ((old, new), 'part', {}, "no method 'part': use one of zero"),
    ((old, new), 'mean3', {}, "the method 'mean3' cannot have the number 3"),
    ((old, new), 'omp0', {}, 'cannot have the number 0'),
    ((old, new), 'focus', {}, 'needs vectors'),
    ((old, new), 'ridge', {}, 'needs a donor'),
    ((old, new), 'omp13', dict(donor=tables(340)), 'k from 1 to 12, for .*; got 13'),
    ((old, new), 'omp4', dict(donor=tables(339)), 'the donor has 339 rows'),
    ((Characters(b'ab'), Dictionary([b'c', b'd'])), 'omp4', dict(donor=tables(2)), 'share none'),
  ):
    with pytest.raises(InputError, match=message):
      transplant(before, *pair, name, **more)
  with pytest.raises(InputError, match='tables of 299 rows are not of 300 ids'):
    transplant(tables(299), old, new, 'parts')


def test_problem_is_pure(both):
  old, new = both
  before = tables(300)
  copies = [array.copy() for array in before]
  for name in METHODS:
    given_all(old, new, name)
  assert all((one == other).all() for one, other in zip(before, copies, strict=True))
  assert dataclasses.fields(Problem)
  assert methods.find('omp32').make.keywords == {'k': 32}
