# SPDX-License-Identifier: Apache-2.0
"""Own files lose no byte and leak none between splits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data import files
from lib.errors import InputError


def splits(pattern):
  """Chunks of the three splits; [] where a split is empty."""
  found = {}
  for split in files.SPLITS:
    try:
      source = files.open_files(str(pattern), split)
      found[split] = [source[i] for i in range(len(source))]
    except InputError:
      found[split] = []
  return found


def test_one_file_is_cut_at_line_ends_in_order(tmp_path):
  lines = b''.join(b'%06d words of a line\n' % i for i in range(50_000))  # 1.35 MB
  (tmp_path / 'a.txt').write_bytes(lines)
  found = splits(tmp_path / 'a.txt')
  assert b''.join(b''.join(found[split]) for split in files.SPLITS) == lines
  assert all(c.endswith(b'\n') and len(c) <= 65536 for chunks in found.values() for c in chunks)
  sizes = [sum(map(len, found[split])) / len(lines) for split in files.SPLITS]
  assert sizes == pytest.approx([0.8, 0.1, 0.1], abs=0.001)


text = st.text(st.sampled_from('ab\né字🙂'), max_size=120)


@settings(max_examples=60, deadline=None)
@given(st.lists(text, min_size=1, max_size=4))
def test_few_files_lose_no_byte_and_break_no_character(tmp_path_factory, texts):
  folder = tmp_path_factory.mktemp('few')
  for i, content in enumerate(texts):
    (folder / f'{i}.txt').write_bytes(content.encode())
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(files, 'CHUNK', 16)
    found = splits(folder)
  chunks = [chunk.decode() for split in files.SPLITS for chunk in found[split]]
  assert ''.join(chunks) == ''.join(texts)
  assert all(0 < len(chunk.encode()) <= 16 for chunk in chunks)
  # Where a chunk ends inside a line, the line is longer than a chunk.
  place, joined = 0, ''.join(texts).encode()
  file_ends = np.cumsum([len(content.encode()) for content in texts])
  for chunk in chunks:
    place += len(chunk.encode())
    if place not in file_ends and joined[place - 1 : place] != b'\n':
      first = max(joined.rfind(b'\n', 0, place) + 1, *(e for e in (0, 0, *file_ends) if e <= place))
      last = min(e for e in (joined.find(b'\n', place) + 1 or len(joined), *file_ends) if e > place)
      assert last - first > 16


def test_arbitrary_bytes_are_kept(tmp_path):
  data = bytes(range(128, 192)) * 4000  # only continuation bytes, no line end
  (tmp_path / 'x.bin').write_bytes(data)
  found = splits(tmp_path / 'x.bin')
  assert b''.join(b''.join(found[split]) for split in files.SPLITS) == data
  assert all(found.values())


def test_many_files_are_dealt_whole_by_their_relative_path(tmp_path):
  def write(folder):
    for i in range(40):
      path = folder / f'{i % 3}' / f'{i}.txt'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(b'file %d\n' % i)

  for folder in (tmp_path / 'here', tmp_path / 'there'):
    write(folder)
  found = splits(tmp_path / 'here' / '**' / '*.txt')
  assert [len(found[split]) for split in files.SPLITS] == [32, 4, 4]
  dealt = [chunk for chunks in found.values() for chunk in chunks]
  assert sorted(dealt) == sorted(b'file %d\n' % i for i in range(40))
  assert splits(tmp_path / 'there') == found  # the same files elsewhere, named as a folder


def test_a_vanished_or_shortened_file_is_named(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_bytes(b'line\n' * 100)
  source = files.open_files(str(path), 'train')
  path.write_bytes(b'line\n')
  with pytest.raises(InputError, match=r'a.txt became shorter'):
    source[0]
  path.unlink()
  with pytest.raises(InputError, match=r'cannot read .*a.txt \(No such file or directory\)'):
    source[0]
