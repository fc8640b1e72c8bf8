# SPDX-License-Identifier: Apache-2.0
"""A first epoch keeps tokens: the same batches with and without, after kills, never mixed up."""

import itertools

import numpy as np
import pytest

from lib.data import pipeline, token_cache
from lib.errors import InputError
from lib.tokenizers.characters import Characters

TEXT = [b'line %d of a text of which tokens are kept\n' % n * (1 + n % 5) for n in range(400)]


@pytest.fixture
def text(tmp_path):
  (tmp_path / 'text').mkdir()
  for n in range(20):
    (tmp_path / f'text/{n}.txt').write_bytes(b''.join(TEXT[20 * n : 20 * n + 20]))
  return str(tmp_path / 'text')


def codec(count=256):
  tokenizer, read = Characters(bytes(range(count))), []
  plain = tokenizer.cover
  tokenizer.cover = lambda data: (read.append(data), plain(data))[1]
  tokenizer.read = read
  return tokenizer


def opened(folder, text, tokenizer):
  """What a new process opens."""
  token_cache._OPEN.clear()
  return token_cache.open_tokens(folder, text, tokenizer)


def batches(folder, text, tokenizer, lanes=2):
  documents = opened(folder, text, tokenizer)
  made = pipeline.batches(documents, tokenizer, batch_size=4, length=32, seed=3, lanes=lanes)
  return documents, made


def several_epochs(made):
  return list(itertools.islice(made, 1000))


def test_batches_are_the_same_with_and_without(text, tmp_path):
  _, plain = batches('', text, codec())
  wanted, cache = several_epochs(plain), str(tmp_path / 'cache')
  for again in (False, True):
    tokenizer = codec()
    documents, made = batches(cache, text, tokenizer)
    found = several_epochs(made)
    for one, other in zip(found, wanted, strict=True):
      for field in pipeline.FIELDS:
        np.testing.assert_array_equal(one[field], other[field])
    # Each document is tokenized once, by the first run; two threads may read it at one moment.
    assert set(tokenizer.read) == (
      set() if again else {*map(documents._source.__getitem__, range(len(documents)))}
    )


def test_after_a_kill_only_unwritten_documents_are_tokenized(text, tmp_path, monkeypatch):
  sizes = [len(one) for one in opened('', text, codec())][::2]
  monkeypatch.setattr(token_cache, 'SHARD_TOKENS', sum(sizes[:-2]))
  cache, first, later = str(tmp_path / 'cache'), codec(), codec()
  documents = opened(cache, text, first)
  half = [documents[index] for index in range(0, len(documents), 2)]
  lost = len(documents._new)
  assert lost == 2  # a shard, and documents that were not written
  (documents._folder / 'tokens-0.array_record').write_bytes(b'half of a shard')  # has no list
  again = opened(cache, text, later)
  for index, ids in zip(range(0, len(documents), 2), half, strict=True):
    np.testing.assert_array_equal(again[index], ids)
  assert len(later.read) == lost
  for index in range(len(documents)):
    again[index]
  assert not again._new  # the last shard is written when no document is missing
  assert len(later.read) == len(documents) - len(half) + lost


def test_other_text_and_other_tokenizers_have_tokens_of_their_own(text, tmp_path):
  def folder(source, tokenizer):
    return token_cache.open_tokens(str(tmp_path / 'cache'), source, tokenizer)._folder

  known = folder(text, codec())
  assert folder(text, codec()) == known
  assert folder(text, codec(128)) != known
  with open(f'{text}/3.txt', 'ab') as file:
    file.write(b'one line more\n')
  assert folder(text, codec()) != known


def test_seeds_of_a_process_share_it_and_leave_all_at_its_end(text, tmp_path):
  cache, first, later = str(tmp_path / 'cache'), codec(), codec()
  one, other = (token_cache.open_tokens(cache, text, first) for _ in range(2))
  np.testing.assert_array_equal(one[3], other[3])
  assert len(first.read) == 1
  one.write()
  np.testing.assert_array_equal(opened(cache, text, later)[3], one[3])
  assert not later.read


def test_a_damaged_shard_is_named_with_its_lane_and_record(text, tmp_path):
  cache = str(tmp_path / 'cache')
  documents, made = batches(cache, text, codec())
  several_epochs(made)
  [shard] = documents._folder.glob('*.array_record')
  whole = shard.read_bytes()
  flipped = bytearray(whole)
  flipped[100:900:50] = bytes(16)  # in the first records; most of a small file is its index
  for content in (bytes(flipped), whole[: len(whole) // 2]):
    shard.write_bytes(content)
    _, made = batches(cache, text, codec())
    with pytest.raises(InputError, match=rf'lane \d of 2: record \d+ of {shard} cannot be read'):
      several_epochs(made)
  shard.with_suffix('.json').write_text('[1, ')
  with pytest.raises(InputError, match='cannot be used'):
    batches(cache, text, codec())


def test_text_without_end_and_folders_that_cannot_be_are_refused(text):
  with pytest.raises(InputError, match='endless text, which is never read twice'):
    token_cache.open_tokens('cache', 'ngram:stdlib/prose', codec())
  with pytest.raises(InputError, match='cannot be used'):
    token_cache.open_tokens('/proc/none', text, codec())
