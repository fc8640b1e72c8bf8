# SPDX-License-Identifier: Apache-2.0
"""Lanes: batches do not depend on how many processes read them, and each reads its part alone."""

import json
from collections import Counter

import numpy as np
import pytest

from lib.data import lanes, pipeline
from lib.data.encoded import Encoded
from lib.errors import InputError
from lib.tokenizers.characters import Characters

B, T = 16, 24


class Counting:
  """Documents of known letters that count how often each is read."""

  def __init__(self, count):
    self.read = Counter()
    generator = np.random.default_rng(1)
    self.texts = [bytes([65 + i % 60] * n) for i, n in enumerate(generator.integers(3, 90, count))]

  def __len__(self):
    return len(self.texts)

  def __getitem__(self, index):
    self.read[int(index)] += 1
    return self.texts[index]


def encoded():
  ids = [np.frombuffer(text, np.uint8).astype(np.int32) for text in Counting(100).texts]
  flat = np.concatenate(ids)
  return Encoded(flat, np.ones_like(flat), np.array([one.size for one in ids]))


def batches(source, count=8, **changes):
  return pipeline.batches(
    source, Characters(), batch_size=B, length=T, seed=3, lanes=count, **changes
  )


def of_process(monkeypatch, process, processes):
  """Makes this the process whose devices have its part of the rows."""
  own = lambda rows: np.arange(rows) * processes // rows == process
  monkeypatch.setattr(lanes, 'own_rows', own)


def parts(monkeypatch, source, processes, steps, states=None, **changes):
  """Batches put together of what each process reads, and the merged place after them."""
  found, after = [], []
  for process in range(processes):
    of_process(monkeypatch, process, processes)
    data = iter(batches(source, **changes))
    if states:
      data.set_state(json.loads(json.dumps(states)))
    found.append([next(data) for _ in range(steps)])
    after.append(json.loads(json.dumps(data.get_state())))
  whole = []
  for every in zip(*found, strict=True):
    for process, batch in enumerate(every):
      foreign = np.arange(B) * processes // B != process
      assert not any(values[foreign].any() for values in batch.values())
    whole.append({field: sum(batch[field] for batch in every) for field in every[0]})
  return whole, lanes.merge(after)


def same(one, other):
  for a, b in zip(one, other, strict=True):
    assert a.keys() == b.keys()
    for field in a:
      np.testing.assert_array_equal(a[field], b[field], err_msg=field)


@pytest.mark.parametrize('make', [lambda: Counting(100), encoded], ids=['text', 'encoded'])
@pytest.mark.parametrize('changes', [{}, {'pack': False}, {'shuffle': False}], ids=str)
def test_batches_are_the_same_for_every_number_of_processes(monkeypatch, make, changes):
  alone, _ = parts(monkeypatch, make(), 1, 12, **changes)
  assert all((batch['segments'] > 0).any(axis=1).all() for batch in alone)
  for processes in (2, 4, 8):
    same(parts(monkeypatch, make(), processes, 12, **changes)[0], alone)


def test_one_lane_is_the_plain_order():
  plain = iter(pipeline.batches(Counting(100), Characters(), batch_size=B, length=T, seed=3))
  one = iter(batches(Counting(100), 1))
  same([next(plain) for _ in range(5)], [next(one) for _ in range(5)])


@pytest.mark.parametrize('first', [1, 2, 8])
@pytest.mark.parametrize('later', [1, 4])
def test_another_number_of_processes_goes_on_at_the_same_place(monkeypatch, first, later):
  alone, _ = parts(monkeypatch, Counting(100), 1, 9)
  _, place = parts(monkeypatch, Counting(100), first, 5)
  same(parts(monkeypatch, Counting(100), later, 4, place)[0], alone[5:])


def test_each_process_reads_its_part_of_the_documents(monkeypatch):
  monkeypatch.setattr(pipeline, '_reading', lambda readers: pipeline.AT_HAND)  # none read ahead
  reads = {}
  for processes in (1, 2, 4, 8):
    for process in range(processes):
      source = Counting(400)
      of_process(monkeypatch, process, processes)
      data = iter(batches(source))
      for _ in range(40):
        next(data)
      reads[processes, process] = source.read
  total = sum(reads[1, 0].values())
  for processes in (2, 4, 8):
    own = [reads[processes, process] for process in range(processes)]
    assert sum(map(Counter.total, own)) == total
    assert sum(own, Counter()) == reads[1, 0]
    assert max(map(Counter.total, own)) <= 1.25 * total / processes


def test_every_document_is_read_once_a_pass_by_one_lane():
  for count in (1, 2, 8):
    rows = [next(iter(batches(Counting(16), count, pack=False)))]
    seen = Counter(int(row[0]) for batch in rows for row in batch['targets'])
    assert seen == Counter({65 + i: 1 for i in range(16)})


def test_lanes_that_do_not_fit_are_refused():
  for count, documents, words in (
    (3, 100, 'divide the batch of 16; got 3'),
    (-1, 100, 'must be 1 or more'),
    (16, 15, '16 lanes need 16 documents or more, one for each; the source has 15'),
  ):
    with pytest.raises(InputError, match=words):
      batches(Counting(documents), count)


def test_a_lane_without_a_token_is_refused():
  source = Counting(16)
  source.texts[3] = source.texts[11] = b''
  with pytest.raises(InputError, match='none of the 2 documents'):
    next(iter(batches(source, 8)))


def test_another_number_of_lanes_does_not_go_on():
  place = iter(batches(Counting(100), 8)).get_state()
  data = iter(batches(Counting(100), 4))
  with pytest.raises(InputError, match='has 8 lanes, this run 4'):
    data.set_state(place)


def test_the_default_divides_the_batch():
  assert [lanes.default(size) for size in (1, 8, 48, 64, 96, 128, 130, 67)] == [
    1, 8, 48, 64, 48, 64, 26, 1,
  ]  # fmt: skip
  assert [lanes.default(64, documents) for documents in (1, 7, 10, 100)] == [1, 4, 8, 64]
  first = next(iter(batches(Counting(100), 0)))
  same([first], [next(iter(batches(Counting(100), 16)))])


def test_evaluation_is_one_pass_whatever_the_lanes():
  one, other = (list(batches(Counting(30), count, repeat=False)) for count in (1, 8))
  same(one, other)


def test_processes_at_different_places_are_noticed():
  with pytest.raises(ValueError, match='different places'):
    lanes.merge([{'parent': {'next': 3}}, {'parent': {'next': 4}}])


def test_replicas_keep_the_lanes_of_each(monkeypatch):
  stacked = lambda: pipeline.stack_replicas([batches(Counting(100)), batches(Counting(50))])
  alone = iter(stacked())
  wanted = [next(alone) for _ in range(6)]
  found, states = [], []
  for process in range(2):
    of_process(monkeypatch, process, 2)
    data = iter(stacked())
    found.append([next(data) for _ in range(3)])
    states.append(data.get_state())
  same([{f: a[f] + b[f] for f in a} for a, b in zip(*found, strict=True)], wanted[:3])
  monkeypatch.undo()
  later = iter(stacked())
  later.set_state(json.loads(json.dumps(lanes.merge(states))))
  same([next(later) for _ in range(3)], wanted[3:])
