# SPDX-License-Identifier: Apache-2.0
"""Batches lose no token and resume exactly."""

import json

import grain
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orbax.checkpoint import v1 as ocp

from lib.data import pipeline
from lib.data.encoded import Encoded
from lib.errors import InputError
from lib.tokenizers import Tokenizer


class Bytes:
  """One token a byte."""

  vocab_size = 256

  def encode(self, data):
    return np.frombuffer(data, np.uint8).astype(np.int32)

  def byte_lengths(self, ids):
    return np.ones(len(ids), np.int32)

  cover = Tokenizer.cover


class Numbers(Bytes):
  """One token for two bytes, so that a test's tokens can all differ."""

  vocab_size = 2**16

  def encode(self, data):
    return np.frombuffer(data, np.uint16).astype(np.int32)

  def byte_lengths(self, ids):
    return np.full(len(ids), 2, np.int32)


class Windows(Bytes):
  """Three tokens for a window of four bytes, all of which its last token covers."""

  vocab_size = 3

  def encode(self, data):
    return np.tile(np.arange(3, dtype=np.int32), len(data) // 4)

  def byte_lengths(self, ids):
    return np.where(ids == 2, 4, 0)


def numbered(*lengths):
  """Documents of `lengths` tokens of Numbers; together they count 0, 1, 2, ..."""
  ends = np.cumsum(lengths)
  return [
    np.arange(e - n, e, dtype=np.uint16).tobytes() for n, e in zip(lengths, ends, strict=True)
  ]


NUMBERED = numbered(7, 1, 12, 5, 30, 2, 0, 9, 4, 3, 8, 16)  # 97 tokens in 12 documents


def rows(dataset, count=None):
  """The first `count` rows, or all, of a data set of batches."""
  found = []
  for batch in dataset:
    found += [
      {field: values[i] for field, values in batch.items()} for i in range(len(batch['targets']))
    ]
    if count is not None and len(found) >= count:
      return found[:count]
  return found


def pieces(row):
  """Targets and inputs of each segment of a row."""
  last = row['segments'].max()
  return [
    (row['targets'][row['segments'] == s], row['inputs'][row['segments'] == s])
    for s in range(1, last + 1)
  ]


def options(**changes):
  return {'batch_size': 4, 'length': 8, 'seed': 0, **changes}


def test_a_packed_row_by_hand():
  # Documents 'abc' and 'defgh' in rows of 4: abc|d and efgh; 256 begins a document.
  first, second = rows(
    pipeline.batches(
      [b'abc', b'defgh'],
      Bytes(),
      **options(batch_size=2, length=4, shuffle=False, repeat=False),
    )
  )
  a, b, c, d, e, f, g, h = b'abcdefgh'
  assert {k: v.tolist() for k, v in first.items()} == {
    'targets': [a, b, c, d],
    'inputs': [256, a, b, 256],
    'bytes': [1, 1, 1, 1],
    'segments': [1, 1, 1, 2],
    'positions': [0, 1, 2, 0],
  }
  assert second['targets'].tolist() == [e, f, g, h]
  assert second['inputs'].tolist() == [d, e, f, g]  # the document goes on
  assert second['segments'].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize('shuffle', [False, True])
def test_packing_keeps_every_token_once(shuffle):
  dataset = pipeline.batches(
    NUMBERED, Numbers(), **options(shuffle=shuffle, repeat=False, batch_size=5)
  )
  found = rows(dataset)
  real = [piece for row in found for piece in pieces(row)]
  targets = np.concatenate([t for t, _ in real])
  if not shuffle:
    assert targets.tolist() == list(range(97))
  assert sorted(targets.tolist()) == list(range(97))
  starts = {0, 7, 8, 20, 25, 55, 57, 66, 70, 73, 81}  # of the documents that are not empty
  for t, i in real:
    # Within a segment the tokens follow each other in one document, and each input is the token
    # before, or the mark of a document's beginning.
    assert (np.diff(t) == 1).all()
    assert not starts & set(t[1:].tolist())
    assert i.tolist() == [2**16 if x in starts else x - 1 for x in t.tolist()]
  assert sum(row['bytes'].sum() for row in found) == sum(map(len, NUMBERED))
  full = [row for row in found if row['segments'].all()]
  assert len(full) == 97 // 8  # only the last row of the pass is not full
  for row in found:
    segments = row['segments']
    assert set(np.unique(segments)) - {0} == set(range(1, segments.max() + 1))
    padding = segments == 0
    assert all((row[field][padding] == 0).all() for field in pipeline.FIELDS)
    assert (row['positions'] <= np.arange(8)).all()
  assert all(row[field].dtype == np.int32 for row in found for field in pipeline.FIELDS)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.integers(1, 9))
def test_packing_any_lengths(lengths, length):
  dataset = pipeline.batches(
    numbered(*lengths), Numbers(), **options(length=length, batch_size=1, repeat=False)
  )
  targets = [x for row in rows(dataset) for t, _ in pieces(row) for x in t.tolist()]
  assert sorted(targets) == list(range(sum(lengths)))


def test_one_document_a_row_is_cropped_and_padded():
  found = rows(
    pipeline.batches(NUMBERED, Numbers(), **options(pack=False, shuffle=False, repeat=False))
  )
  assert len(found) == 12
  for row, document in zip(found, NUMBERED, strict=True):
    ids = Numbers().encode(document)[:8].tolist()
    assert row['targets'].tolist() == ids + [0] * (8 - len(ids))
    assert row['inputs'].tolist() == ([2**16, *ids[:-1]] if ids else []) + [0] * (8 - len(ids))
    assert row['segments'].tolist() == [1] * len(ids) + [0] * (8 - len(ids))


def test_whole_documents_fill_rows_in_their_order():
  ids = [np.arange(n) for n in (2, 3, 0, 2, 4)]
  documents = Encoded(
    np.concatenate(ids), np.ones(11, int), np.array([len(one) for one in ids])
  )  # fmt: skip
  rows = pipeline.pack_whole_documents(documents, 9, 5)
  assert rows['targets'].tolist() == [[0, 1, 0, 1, 2], [0, 1, 0, 0, 0], [0, 1, 2, 3, 0]]
  assert rows['inputs'].tolist() == [[9, 0, 9, 0, 1], [9, 0, 0, 0, 0], [9, 0, 1, 2, 0]]
  assert rows['segments'].tolist() == [[1, 1, 2, 2, 2], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]
  assert rows['positions'].tolist() == [[0, 1, 0, 1, 2], [0, 1, 0, 0, 0], [0, 1, 2, 3, 0]]
  assert rows['bytes'].sum() == 11
  with pytest.raises(InputError, match='a document of 4 tokens does not fit a row of 3'):
    pipeline.pack_whole_documents(documents, 9, 3)
  with pytest.raises(InputError, match='4 rows of 0 tokens are not a batch'):
    pipeline.batches(documents, Bytes(), **options(batch_size=4, length=0))
  empty_first = Encoded(np.arange(2), np.ones(2, int), np.array([0, 2]))
  assert pipeline.pack_whole_documents(empty_first, 9, 3)['targets'].tolist() == [[0, 1, 0]]


def test_documents_are_cut_into_examples_that_are_packed_whole():
  def targets(length):
    few = options(batch_size=1, length=length, shuffle=False, repeat=False, example_bytes=3)
    return rows(pipeline.batches([b'abcdefg', b'', b'hi'], Bytes(), **few))

  texts = [b'abc', b'def', b'g', b'hi']
  ids = np.concatenate([Bytes().encode(text) for text in texts])
  cut = Encoded(ids, np.ones_like(ids), np.array([*map(len, texts)]))
  for length in (3, 4, 5, 8, 20):
    wanted = pipeline.pack_whole_documents(cut, 256, length)
    for field in pipeline.FIELDS:
      assert [row[field].tolist() for row in targets(length)] == wanted[field].tolist()
  found = [bytes(row['targets'].tolist()) for row in targets(2)]  # an example is larger than a row
  assert found == [b'ab', b'c\0', b'de', b'fg', b'hi']
  for source, pack in (([b'a'], False), (cut, True)):
    with pytest.raises(InputError, match='give bytes, and set pack=True'):
      pipeline.batches(source, Bytes(), **options(pack=pack, example_bytes=3))


def test_context_bytes_keeps_the_tokens_that_begin_within():
  def covered(tokenizer, document, context):
    one = dict(batch_size=1, length=64, pack=False, shuffle=False, repeat=False)
    [row] = rows(pipeline.batches([document], tokenizer, **options(context_bytes=context, **one)))
    return row['bytes'].sum(), row['segments'].sum()

  document = b'x' * 20
  # The fourth token of 2 bytes begins at byte 6 of 7 and reaches byte 8. A window of 4 bytes stays
  # whole with all its 3 tokens, of which only the last covers bytes.
  assert covered(Bytes(), document, 7) == (7, 7)
  assert covered(Numbers(), document, 7) == (8, 4)
  assert covered(Windows(), document, 7) == (8, 6)
  assert covered(Windows(), document, 3) == (4, 3)
  assert covered(Windows(), document, 20) == (20, 15)
  assert covered(Bytes(), document, 30) == (20, 20)


def test_every_epoch_has_an_order_of_its_own_set_by_the_seed():
  def order(seed):
    dataset = pipeline.batches(
      [b'%c' % i for i in range(20)], Bytes(), **options(pack=False, length=1, seed=seed)
    )
    return [int(row['targets'][0]) for row in rows(dataset, 40)]

  once = order(0)
  assert sorted(once[:20]) == sorted(once[20:]) == list(range(20))
  assert once[:20] != once[20:]
  assert order(0) == once
  assert order(1)[:20] not in (once[:20], once[20:])


@pytest.mark.parametrize('pack', [False, True])
def test_the_last_batch_of_a_pass_is_filled_up(pack):
  few = options(pack=pack, shuffle=False, repeat=False, batch_size=10)
  first, last = pipeline.batches(NUMBERED, Numbers(), **few)  # 13 packed rows, 12 documents
  for field in pipeline.FIELDS:
    assert first[field].shape == last[field].shape == (10, 8)
  rows_left = 3 if pack else 2
  assert last['segments'].any(axis=1).tolist() == [True] * rows_left + [False] * (10 - rows_left)


def same(batch, other):
  return all(np.array_equal(batch[field], other[field]) for field in pipeline.FIELDS)


RESUMED = {
  'packed': {},
  'packed in order': {'shuffle': False},
  'one document a row': {'pack': False},
  'one pass': {'repeat': False, 'batch_size': 2},
  'examples': {'example_bytes': 10},
}


@pytest.mark.parametrize('changes', RESUMED.values(), ids=RESUMED)
def test_an_iterator_resumes_exactly_anywhere(changes, monkeypatch):
  monkeypatch.setattr(pipeline, 'SHUFFLE_TOKENS', 48)  # several windows in an epoch

  def fresh():
    return iter(pipeline.batches(NUMBERED, Numbers(), **options(**changes)))

  iterator, expected, states = fresh(), [], []
  for _ in range(12):  # a pass is 13 rows: more than three epochs
    states.append(json.dumps(iterator.get_state()))
    batch = next(iterator, None)
    if batch is None:
      break
    expected.append(batch)
  assert len(expected) == (7 if 'repeat' in changes else 12)
  for k, state in enumerate(states):
    resumed = fresh()
    next(resumed)
    resumed.set_state(json.loads(state))
    for batch in expected[k:]:
      assert json.dumps(resumed.get_state()) == states[k]
      assert same(next(resumed), batch)
      k += 1
    if 'repeat' in changes:
      assert next(resumed, None) is None


def counting(count):
  return grain.MapDataset.range(count).to_iter_dataset()


@pytest.mark.parametrize('count', [0, 1, 3, 4, 12, 13])
def test_windows_are_shuffled_each_in_its_own_order_and_resume_anywhere(count):
  shuffled = lambda seed: iter(pipeline._Shuffled(counting(count), 4, seed))
  iterator, found, states = shuffled(0), [], []
  for number in iterator:
    found.append(number)
    states.append(json.dumps(iterator.get_state()))
  windows = [found[start : start + 4] for start in range(0, count, 4)]
  assert [sorted(window) for window in windows] == [
    list(range(start, min(start + 4, count))) for start in range(0, count, 4)
  ]
  for done, state in enumerate(states, start=1):
    resumed = shuffled(0)
    resumed.set_state(json.loads(state))
    assert list(resumed) == found[done:]


def test_windows_and_seeds_have_different_orders():
  shuffled = lambda seed: list(pipeline._Shuffled(counting(60), 20, seed))
  first, second, third = (np.reshape(shuffled(0), (3, 20)) - np.arange(0, 60, 20)[:, None]).tolist()
  orders = {tuple(order) for order in (first, second, third, shuffled(1)[:20], range(20))}
  assert len(orders) == 5
  assert shuffled(0) == shuffled(0)


def test_replicas_are_stacked_and_resume_from_an_orbax_checkpoint(tmp_path):
  def datasets():
    return [pipeline.batches(NUMBERED, Numbers(), **options(seed=seed)) for seed in range(3)]

  iterator = iter(pipeline.stack_replicas(datasets()))
  singles = [iter(dataset) for dataset in datasets()]
  for _ in range(4):
    batch = next(iterator)
    for replica, single in enumerate(singles):
      assert same({field: batch[field][replica] for field in batch}, next(single))
  assert batch['targets'].shape == (3, 4, 8)
  with ocp.training.Checkpointer(tmp_path / 'checkpoints') as checkpoints:
    checkpoints.save_checkpointables(4, {'data': iterator})
    expected = [next(iterator) for _ in range(5)]
    resumed = iter(pipeline.stack_replicas(datasets()))
    checkpoints.load_checkpointables(4, {'data': resumed})
  assert all(same(next(resumed), batch) for batch in expected)


@pytest.mark.parametrize(
  ('changes', 'part'),
  [
    ({'source': ()}, 'no document'),
    ({'context_bytes': 10}, 'pack=False'),
  ],
)
def test_bad_batches_get_one_sentence(changes, part):
  with pytest.raises(InputError, match=rf'^.*{part}.*\.$'):
    pipeline.batches(**{'source': NUMBERED, 'tokenizer': Numbers()} | options(**changes))


class Dropping(Bytes):
  """Drops spaces, as tokenizers of other projects do."""

  def encode(self, data):
    return super().encode(data.replace(b' ', b''))


@pytest.mark.parametrize('documents', [[b''] * 5, [b' ', b'   ']], ids=['empty', 'spaces'])
@pytest.mark.parametrize('shuffle', [True, False])
@pytest.mark.parametrize('pack', [True, False])
def test_documents_without_a_token_are_refused_and_do_not_hang(documents, pack, shuffle):
  batches = pipeline.batches(documents, Dropping(), **options(pack=pack, shuffle=shuffle))
  with pytest.raises(InputError, match=rf'none of the {len(documents)} documents gives a token'):
    for _, _ in zip(range(9), batches):
      pass


def test_rows_of_single_documents_need_one_token_in_a_pass():
  documents = [b' '] * 60 + [b'a']
  one = options(pack=False, batch_size=1)
  found = rows(pipeline.batches(documents, Dropping(), **one), 5 * len(documents))
  assert sum(row['targets'][0] == ord('a') for row in found) == 5


def test_one_token_in_many_documents_is_enough(monkeypatch):
  monkeypatch.setattr(pipeline, 'SHUFFLE_TOKENS', 8)  # a row
  documents = [b' ' * i for i in range(60)] + [b'a']
  found = rows(pipeline.batches(documents, Dropping(), **options(batch_size=1)), 6)
  assert all(row['targets'].tolist() == [ord('a')] * 8 for row in found)


def test_encoded_documents_without_a_token_are_refused():
  none = Encoded(np.zeros(0, int), np.zeros(0, int), np.zeros(3, int))
  with pytest.raises(InputError, match='none of the 3 documents gives a token'):
    pipeline.pack_whole_documents(none, 9, 5)
