# SPDX-License-Identifier: Apache-2.0
"""Own files lose no byte and leak none between splits."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data import own_files
from lib.errors import InputError


def splits(pattern):
  """Chunks of the three splits; [] where a split is empty."""
  found = {}
  for split in own_files.SPLITS:
    try:
      source = own_files.open_files(str(pattern), split)
      found[split] = [source[i] for i in range(len(source))]
    except InputError:
      found[split] = []
  return found


def test_one_file_is_cut_at_line_ends_in_order(tmp_path):
  lines = b''.join(b'%06d words of a line\n' % i for i in range(50_000))  # 1.35 MB
  (tmp_path / 'a.txt').write_bytes(lines)
  found = splits(tmp_path / 'a.txt')
  assert b''.join(b''.join(found[split]) for split in own_files.SPLITS) == lines
  assert all(c.endswith(b'\n') and len(c) <= 65536 for chunks in found.values() for c in chunks)
  sizes = [sum(map(len, found[split])) / len(lines) for split in own_files.SPLITS]
  assert sizes == pytest.approx([0.8, 0.1, 0.1], abs=0.001)


text = st.text(st.sampled_from('ab\né字🙂'), max_size=120)


@settings(max_examples=60, deadline=None)
@given(st.lists(text, min_size=1, max_size=4))
def test_few_files_lose_no_byte_and_break_no_character(tmp_path_factory, texts):
  folder = tmp_path_factory.mktemp('few')
  for i, content in enumerate(texts):
    (folder / f'{i}.txt').write_bytes(content.encode())
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(own_files, 'CHUNK', 16)
    found = splits(folder)
  chunks = [chunk.decode() for split in own_files.SPLITS for chunk in found[split]]
  once = list(dict.fromkeys(filter(None, texts)))  # a text counts once
  assert sorted(''.join(chunks)) == sorted(''.join(once))
  assert all(0 < len(chunk.encode()) <= 16 for chunk in chunks)
  if len(once) == 1:
    assert ''.join(chunks) == once[0]
    # Where a chunk ends inside a line, the line is longer than a chunk or a split would be empty.
    lines = once[0].encode()
    ends = np.cumsum([len(chunk.encode()) for chunk in chunks])[:-1].tolist()
    for end in ends:
      if lines[end - 1 : end] != b'\n' and lines.count(b'\n') > 20:
        assert (lines.find(b'\n', end) + 1 or len(lines)) - lines.rfind(b'\n', 0, end) - 1 > 16


def test_arbitrary_bytes_are_kept(tmp_path):
  data = np.random.default_rng(0).integers(128, 192, 256_000).astype(np.uint8).tobytes()
  (tmp_path / 'x.bin').write_bytes(data)
  found = splits(tmp_path / 'x.bin')  # only continuation bytes, no line end
  assert b''.join(b''.join(found[split]) for split in own_files.SPLITS) == data
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
  assert [len(found[split]) for split in own_files.SPLITS] == [32, 4, 4]
  dealt = [chunk for chunks in found.values() for chunk in chunks]
  assert sorted(dealt) == sorted(b'file %d\n' % i for i in range(40))
  assert splits(tmp_path / 'there') == found  # the same files elsewhere, named as a folder


def test_a_vanished_or_shortened_file_is_named(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_bytes(b'line\n' * 100)
  source = own_files.open_files(str(path), 'train')
  path.write_bytes(b'line\n')
  with pytest.raises(InputError, match=r'a.txt became shorter'):
    source[0]
  path.unlink()
  with pytest.raises(InputError, match=r'cannot read .*a.txt \(No such file or directory\)'):
    source[0]


def test_every_file_of_a_few_is_in_every_split(tmp_path):
  # Laid end to end, three languages would be trained on two and tested on the third.
  for language in ('ar', 'en', 'ru'):
    (tmp_path / language).write_bytes(
      b''.join(b'%s %d\n' % (language.encode(), i) for i in range(999))
    )
  for split, share in zip(own_files.SPLITS, (0.8, 0.1, 0.1), strict=True):
    text = b''.join(splits(tmp_path)[split])
    for language in (b'ar', b'en', b'ru'):
      assert text.count(language) == pytest.approx(999 * share, abs=20)


def test_a_folder_with_links_to_itself_gives_each_file_once(tmp_path):
  folder = tmp_path / 'text'
  (folder / 'deep').mkdir(parents=True)
  for i in range(12):
    (folder / 'deep' / f'{i}.txt').write_bytes(b'file %d\n' % i)
  before = splits(folder)
  for i in range(3):
    (folder / f'loop{i}').symlink_to(folder)  # without end where links are followed
    (folder / 'deep' / f'loop{i}').symlink_to('..')
  for i in range(12):
    (folder / f'link{i}').symlink_to(folder / 'deep/3.txt')
  os.link(folder / 'deep/5.txt', folder / 'zz.txt')  # a second name of the same file
  for pattern in (folder, folder / '**', folder / '**/*', tmp_path / '*' / '**/*.txt'):
    assert splits(pattern) == before
  assert own_files.open_corpus(str(folder)).copies == 0
  (tmp_path / 'named').symlink_to(folder)
  assert splits(tmp_path / 'named') == before  # a link that the user names is followed
  only = tmp_path / 'only'
  only.mkdir()
  (only / 'link').symlink_to(folder / 'deep/3.txt')
  with pytest.raises(InputError, match='links in folders are not followed'):
    own_files.open_files(str(only), 'train')


def test_copies_of_a_file_are_dropped_and_counted(tmp_path):
  for i in range(40):
    (tmp_path / f'{i:02}.txt').write_bytes(b'text %d\n' % (i % 20))
  (tmp_path / 'empty').write_bytes(b'')
  found = splits(tmp_path)
  dealt = [chunk for chunks in found.values() for chunk in chunks]
  assert sorted(dealt) == sorted(b'text %d\n' % i for i in range(20))
  corpus = own_files.open_corpus(str(tmp_path))
  assert (len(corpus.files), corpus.copies) == (20, 20)


def test_a_file_of_one_line_has_all_splits(tmp_path):
  (tmp_path / 'minified.json').write_text('{' + ', '.join(f'"é{i}": {i}' for i in range(900)) + '}')
  found = splits(tmp_path / 'minified.json')
  chunks = [chunk for split in own_files.SPLITS for chunk in found[split]]
  assert b''.join(chunks) == (tmp_path / 'minified.json').read_bytes()
  assert [chunk.decode() for chunk in chunks]  # characters stay whole
  sizes = [sum(map(len, found[split])) for split in own_files.SPLITS]
  assert np.divide(sizes, sum(sizes)) == pytest.approx([0.8, 0.1, 0.1], abs=0.001)
  (tmp_path / 'mac.txt').write_bytes(b'\r'.join(b'%d' % i for i in range(9999)))
  assert all(splits(tmp_path / 'mac.txt').values())


def test_text_that_only_repeats_itself_is_named(tmp_path):
  (tmp_path / 'same.txt').write_bytes(b'the same line again and again\n' * 999)
  with pytest.raises(InputError, match=r'all text of the test split .* repeats itself less\.$'):
    own_files.open_files(str(tmp_path / 'same.txt'), 'test')


@pytest.mark.parametrize('encoding', ['utf-16', 'utf-16-le', 'utf-16-be', 'utf-32', 'utf-32-be'])
def test_text_in_wide_encodings_is_refused_in_a_sentence(tmp_path, encoding):
  (tmp_path / 'good.txt').write_text('good\n')
  english = 'Words of a letter, wide.\r\n' * 9
  (tmp_path / 'wide.txt').write_bytes(english.encode(encoding))
  with pytest.raises(InputError, match=r'wide.txt is text in UTF-\d\d-[BL]E; convert it to UTF-8'):
    own_files.open_files(str(tmp_path), 'train')
  if not encoding.endswith('e'):  # with its byte order mark, other letters are recognised too
    russian = 'Широкие слова 🙂\n' * 400  # 4,096 bytes end amid a character
    (tmp_path / 'wide.txt').write_bytes(russian.encode(encoding))
    with pytest.raises(InputError, match='convert it to UTF-8'):
      own_files.open_files(str(tmp_path), 'train')


TEXTS = {
  'Russian': 'Все счастливые семьи похожи друг на друга,\nкаждая несчастлива по-своему.\n',
  'Chinese': '道可道，非常道；名可名，非常名。\n无名天地之始，有名万物之母。\n',
  'Japanese': '吾輩は猫である。名前はまだ無い。\nどこで生れたか頓と見当がつかぬ。\n',
  'Arabic': 'كان يا ما كان في قديم الزمان\nوسالف العصر والأوان\n',
  'Korean': '나랏말싸미 듕귁에 달아 문자와로\n서로 사맛디 아니할쎄\n',
}


@pytest.mark.parametrize('language', TEXTS)
@pytest.mark.parametrize('encoding', ['utf-16-le', 'utf-16-be', 'utf-32-le', 'utf-32-be'])
def test_wide_text_of_any_script_is_refused_without_its_mark(tmp_path, language, encoding):
  for times in (1, 99):
    (tmp_path / 'wide.txt').write_bytes((TEXTS[language] * times).encode(encoding))
    with pytest.raises(InputError, match=f'wide.txt is text in {encoding.upper()}; convert it'):
      own_files.open_files(str(tmp_path), 'train')


NARROW = {
  **{f'{language} in UTF-8': text.encode() for language, text in TEXTS.items()},
  'Russian in KOI8-R': TEXTS['Russian'].encode('koi8-r'),
  'Russian in CP1251': TEXTS['Russian'].encode('cp1251'),
  'Chinese in GBK': TEXTS['Chinese'].encode('gbk'),
  'Japanese in Shift-JIS': TEXTS['Japanese'].encode('shift-jis'),
  'Japanese in ISO-2022': TEXTS['Japanese'].encode('iso2022-jp'),
  'Korean in EUC': TEXTS['Korean'].encode('euc-kr'),
  'Latin-1': 'Là où les élèves étaient déjà à l’école'.replace('’', "'").encode('latin-1'),
  'names that end with zeros': b'one line\n\0another, longer one\n\0the third\n\0',
  'samples of sound': (3000 * np.sin(np.arange(2000) / 9)).astype('<i2').tobytes(),
  'an image': b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR' + np.random.default_rng(0).bytes(3000),
}


@pytest.mark.parametrize('name', NARROW)
def test_other_text_and_binary_files_are_not_taken_for_wide_text(tmp_path, name):
  for times in (1, 99):
    (tmp_path / 'file').write_bytes(NARROW[name] * times)
    assert own_files.open_corpus(str(tmp_path / 'file')).files


def test_binary_files_are_read_as_they_are(tmp_path):
  rng = np.random.default_rng(0)
  contents = [
    rng.bytes(3000), bytes(3000), b'\xff\xfe' + rng.bytes(3000), b'', b'\xfe',
    np.arange(900, dtype='<u2').tobytes(), rng.integers(0, 30, 900).astype('<u4').tobytes(),
  ]  # fmt: skip
  for i, content in enumerate(contents):
    (tmp_path / str(i)).write_bytes(content)
  chunks = [chunk for chunks in splits(tmp_path).values() for chunk in chunks]
  assert sum(map(len, chunks)) >= sum(map(len, contents)) - 1000  # but for repeated zeros


def test_a_byte_order_mark_is_no_text(tmp_path):
  (tmp_path / 'a.txt').write_bytes(b'\xef\xbb\xbfone\ntwo\n\xef\xbb\xbfthree\n')
  (tmp_path / 'b.txt').write_bytes(b'\xef\xbb\xbf')
  found = splits(tmp_path)
  assert b''.join(b''.join(found[s]) for s in own_files.SPLITS) == b'one\ntwo\n\xef\xbb\xbfthree\n'


def test_a_copy_with_a_byte_order_mark_counts_once(tmp_path):
  for i in range(13):
    (tmp_path / f'{i:02}.txt').write_bytes(b'text %d\n' % i)
  (tmp_path / 'marked.txt').write_bytes(b'\xef\xbb\xbftext 5\n')
  corpus = own_files.open_corpus(str(tmp_path))
  assert (len(corpus.files), corpus.copies) == (13, 1)
  dealt = [chunk for chunks in splits(tmp_path).values() for chunk in chunks]
  assert sorted(dealt) == sorted(b'text %d\n' % i for i in range(13))
