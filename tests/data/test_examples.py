# SPDX-License-Identifier: Apache-2.0
"""Training text that is read from its source: every example once an epoch, sizes as of a sample."""

import json
from collections import Counter

import numpy as np
import pytest

from lib.data import encoded, excerpts, lanes, pipeline, sources
from lib.data.examples import Examples
from lib.tokenizers.base import Dictionary

SIZE, TOTAL = 60, 4_000  # bytes of an example, and of the text in memory
WORDS = b'one stream of text that is far larger than what memory has'.split()


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  folder, rng = tmp_path_factory.mktemp('text'), np.random.default_rng(0)
  for file in range(60):
    lines = [b' '.join(rng.choice(WORDS, rng.integers(3, 12))) for _ in range(rng.integers(6, 30))]
    text = b'\n'.join(b'%d %d %s' % (file, i, line) for i, line in enumerate(lines))
    (folder / f'{file}.txt').write_bytes(text)
  return str(folder)


@pytest.fixture(scope='module', params=['bytes', 'words'])
def streamed(request, source, tmp_path_factory):
  """Examples of a stream, and its documents."""
  text = {
    split: excerpts.of_split(source, split, length=SIZE, total=600)
    for split in ('validation', 'test')
  }
  text['train'] = excerpts.of_whole_documents(source, 'train', length=SIZE, total=TOTAL)
  tokenizer = Dictionary([bytes([i]) for i in range(256)] + WORDS * (request.param == 'words'))
  folder = tmp_path_factory.mktemp('encoded')
  encode = lambda texts: encoded.encode(folder, request.param, texts, tokenizer.cover_batch)
  documents = sources.open_source(source, 'train')
  return Examples(tokenizer, text, encode, 4 * SIZE, 4, documents), documents


def read(corpus, batch):
  """The texts of each row of a batch."""
  for ids, segments in zip(batch['targets'], batch['segments'], strict=True):
    every = range(1, segments.max() + 1)
    yield [corpus.tokenizer.decode(ids[segments == one]) for one in every]


def test_each_lane_reads_its_examples_once_an_epoch(streamed, monkeypatch):
  monkeypatch.setattr(pipeline, 'SHUFFLE_TOKENS', 1)  # rows in the order in which they are read
  monkeypatch.setattr(pipeline, 'SHUFFLE_ROWS', 1)
  corpus, documents = streamed
  count = lanes.default(corpus.batch_size)
  assert count > 1
  assert sum(map(len, documents)) > 4 * corpus.train_bytes
  wanted = []
  for lane in range(count):
    indices = range(lane, len(documents), count)
    wanted.append(Counter(x for i in indices for x in excerpts.pieces(documents[i], SIZE)))
  texts: list[list[bytes]] = [[] for _ in range(count)]
  data = iter(corpus.batches(seed=1))
  while any(len(one) <= 2 * whole.total() for one, whole in zip(texts, wanted, strict=True)):
    for row, found in enumerate(read(corpus, next(data))):
      texts[row * count // corpus.batch_size] += found
  for one, whole in zip(texts, wanted, strict=True):
    first, second = one[: whole.total()], one[whole.total() : 2 * whole.total()]
    assert Counter(first) == Counter(second) == whole
    assert first != second
  held = {*corpus.text['validation'].texts, *corpus.text['test'].texts}
  assert not held & {text for one in texts for text in one}


def test_a_step_reads_what_the_sample_says(streamed):
  corpus, documents = streamed
  data = iter(corpus.batches(seed=0))
  steps = [next(data) for _ in range(sum(map(len, documents)) // round(corpus.step_bytes))]
  covered = sum(batch['bytes'].sum() for batch in steps)
  tokens = sum((batch['segments'] > 0).sum() for batch in steps)
  assert covered / len(steps) == pytest.approx(corpus.step_bytes, rel=0.05)
  assert tokens / covered == pytest.approx(corpus.tokens_per_byte, rel=0.05)
  places = sum(batch['positions'].sum() for batch in steps)  # Σ n (n - 1) / 2
  assert 2 * places / tokens + 1 == pytest.approx(corpus.context, rel=0.05)


def test_a_stream_goes_on_at_any_step_with_any_number_of_processes(streamed, monkeypatch):
  corpus, _ = streamed
  data = iter(corpus.batches(seed=2))
  alone = [next(data) for _ in range(9)]
  states, halves = [], []
  for process in range(2):
    own = lambda rows, process=process: np.arange(rows) * 2 // rows == process
    monkeypatch.setattr(lanes, 'own_rows', own)
    data = iter(corpus.batches(seed=2))
    halves.append([next(data) for _ in range(5)])
    states.append(json.loads(json.dumps(data.get_state())))
  monkeypatch.undo()
  data = iter(corpus.batches(seed=2))
  data.set_state(lanes.merge(states))
  found = [{f: a[f] + b[f] for f in a} for a, b in zip(*halves, strict=True)]
  for one, other in zip(alone, [*found, *(next(data) for _ in range(4))], strict=True):
    for field in pipeline.FIELDS:
      np.testing.assert_array_equal(one[field], other[field], err_msg=field)
