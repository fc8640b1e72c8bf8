# SPDX-License-Identifier: Apache-2.0
"""Text that stands in two splits is found exactly, and cut out of validation and test alone."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data import overlap, own_files, sources
from tests.helpers.slow_overlap import reference, share

few_letters = st.lists(st.binary(max_size=40).map(lambda data: data.translate(b'ab' * 128)))


@settings(max_examples=200, deadline=None)
@given(few_letters, few_letters, st.integers(2, 13))
def test_marks_are_those_of_a_set_of_all_windows(held, train, length):
  found = overlap.marks(held, train, length)
  for one, other in zip(found, reference(held, train, length), strict=True):
    assert np.array_equal(one, other)


def test_a_stretch_counts_from_100_bytes_at_any_offset():
  stretch, other = np.random.default_rng(0).bytes(100), b'a' * 50
  for offset in range(51):
    held = [other[:offset] + stretch + other]
    assert overlap.share(held, [stretch]) == 100 / len(held[0])
    assert overlap.share(held, [b'b' * offset + stretch[:99], stretch[1:]]) == 0
  assert overlap.share([], [stretch]) == overlap.share([b''], [stretch]) == 0


def test_repetitive_text_takes_linear_time():
  held, train = [b'ab' * 500_000], [b'ba' * 2_000_000]
  overlap.share(held, train[:0])  # compiles
  start = time.process_time()
  assert overlap.share(held, train) == 1
  assert time.process_time() - start < 20  # a quadratic search would take hours


def test_blocks_of_windows_give_the_same(monkeypatch):
  rng = np.random.default_rng(0)
  train = [rng.bytes(5000) for _ in range(3)]
  held = [train[0][100:700] + rng.bytes(900) + train[2][:350], train[1][4000:]]
  expected = reference(held, train)
  monkeypatch.setattr(overlap, 'BLOCK', 7)
  for one, other in zip(overlap.marks(held, train), expected, strict=True):
    assert np.array_equal(one, other)


LINES = [
  bytes(np.random.default_rng(i).integers(97, 123, 7 + 23 * (i % 9)).astype(np.uint8)) + b'\n'
  for i in range(60)
] + [('é字' * 700).encode() + b'\n', b'=' * 79 + b'\n', b'\n']
document = st.lists(st.sampled_from(LINES), max_size=12).map(b''.join)
documents = st.lists(document, max_size=6)


@settings(max_examples=60, deadline=None)
@given(documents, documents, documents)
def test_after_cutting_the_reference_finds_almost_no_overlap(train, validation, test):
  cuts = overlap.clean(train, validation, test)
  left = {'validation': cuts['validation'].join(validation), 'test': cuts['test'].join(test)}
  assert share(left['validation'], train) <= overlap.LIMIT
  assert share(left['test'], [*train, *left['validation']]) <= overlap.LIMIT
  for split, held in (('validation', validation), ('test', test)):
    figures = cuts[split].overlap
    assert figures.before == pytest.approx(share(held, train))
    assert figures.after == pytest.approx(share(left[split], train))
    size = sum(map(len, held))
    assert figures.kept == pytest.approx(sum(map(len, left[split])) / size if size else 1)
    for one, whole in zip(left[split], held, strict=True):
      one.decode()  # no character is cut
      rest = iter(whole)
      assert all(byte in rest for byte in one)  # what stays, in order
      assert not one or len(one) >= overlap.LEFT * len(whole)


def test_whole_lines_are_cut_and_documents_stay_one():
  rng = np.random.default_rng(0)
  lines = [bytes(rng.integers(97, 123, 60).astype(np.uint8)) + b'\n' for _ in range(30)]
  train = [b''.join(lines[:10])]
  held = [b''.join([*lines[20:25], lines[3], lines[4], *lines[25:30]]), b''.join(lines[:9])]
  cut = overlap.cut(held, train)
  assert cut.join(held) == [b''.join(lines[20:30]), b'']  # a document of copies is dropped
  assert cut.pieces == [[(0, 305), (427, 732)], []]
  assert cut.overlap.before == (1 + 122 + 549) / (732 + 549)  # the line end before them is shared
  assert (cut.overlap.after, cut.overlap.kept) == (0, 610 / (732 + 549))


def test_a_cut_may_make_a_new_stretch_and_is_checked_again():
  rng = np.random.default_rng(0)
  one, two, shared = (bytes(rng.integers(97, 123, n).astype(np.uint8)) for n in (80, 80, 120))
  rest = bytes(rng.integers(97, 123, 400).astype(np.uint8))
  lines = [line + b'\n' for line in (one, shared, two, rest)]
  train = [b''.join(lines[:1] + lines[2:3]), lines[1]]  # without the middle, the outer lines match
  assert overlap.cut([b''.join(lines)], train).join([b''.join(lines)]) == [lines[3]]


def test_long_lines_are_cut_inside(tmp_path):
  rng = np.random.default_rng(0)
  letters = list('aбв字🙂')
  one, two, shared = (''.join(rng.choice(letters, 4000)).encode() for _ in range(3))
  [left] = overlap.cut([one + shared + two], [shared[1:-1]]).join([one + shared + two])
  assert len(left.decode()) == pytest.approx(8000, abs=6)
  assert left.startswith(one)
  assert left.endswith(two)


def test_own_files_share_nothing_and_train_is_untouched(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  rng = np.random.default_rng(0)
  licence = b''.join(bytes(rng.integers(97, 123, 70).astype(np.uint8)) + b'\n' for _ in range(5))
  texts = [
    licence + b''.join(b'%d %d\n' % tuple(rng.integers(1 << 60, size=2)) for _ in range(60))
    for _ in range(30)
  ]
  folder = tmp_path / 'text'
  folder.mkdir()
  for i, text in enumerate(texts):
    (folder / f'{i}.txt').write_bytes(text)
  found = {}
  for split in own_files.SPLITS:
    source = sources.open_source(str(folder), split)
    found[split] = [source[i] for i in range(len(source))]
  assert all(text in texts for text in found['train'])
  assert [len(found[split]) for split in own_files.SPLITS] == [24, 3, 3]
  for split in ('validation', 'test'):
    assert share(found[split], found['train']) == 0
    assert all(licence + text in texts for text in found[split])
  figures = own_files.open_corpus(str(folder)).overlaps['test']
  assert figures.before == pytest.approx(len(licence) / np.mean([*map(len, texts)]), rel=0.1)
  assert figures.after == 0
  # The result is kept by content, and a damaged file is made again.
  [kept] = (tmp_path / 'cache/anytoken/overlap').iterdir()
  content = kept.read_text()
  assert json.loads(content).keys() == {'validation', 'test'}
  kept.write_text(content[:100])
  own_files._corpus.cache_clear()
  assert own_files.open_corpus(str(folder)).overlaps['test'] == figures
  assert kept.read_text() == content
  monkeypatch.setattr(overlap, 'clean', None)  # not asked again
  own_files._corpus.cache_clear()
  assert own_files.open_corpus(str(folder)).overlaps['test'] == figures
