# SPDX-License-Identifier: Apache-2.0
"""The table of all tokenizers: each trains, encodes, decodes, is saved and comes back."""

import collections
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers import container, documents, files, registry, strings
from tests.compression.test_byte_model import codecs, random_model
from tests.helpers import byte_models, hostile

DOCUMENTS = [byte_models.sources()[i : i + 5000] for i in range(0, 60_000, 5000)]
TEXT = byte_models.sources()[60_000:61_000]
SIZES = {'unicode': 0x10000, 'wordpiece': 600, 'static_ac': 4096, 'gzip': 256}
WRITTEN = pathlib.Path(__file__).parents[1] / 'fixtures' / 'tokenizers_ad6c8d5'
FACTS = json.loads((WRITTEN / 'facts.json').read_text())


@pytest.mark.parametrize('name', registry.trainable())
def test_every_family_trains_and_comes_back_from_its_file(name, tmp_path):
  made = tokenizers.train(name, DOCUMENTS, SIZES.get(name, 500))
  assert made.vocab_size <= SIZES.get(name, 500)
  for text in (TEXT, b'', bytes(range(256)), 'é\u3042\U0001f600'.encode()):
    ids, lengths = made.cover(text)
    assert made.lossless
    assert made.decode(ids) == text
    assert lengths.sum() == len(text)
  tokenizers.save(made, tmp_path / 'tokenizer')
  again = tokenizers.load(tmp_path / 'tokenizer')
  assert type(again) is type(made)
  assert again.fingerprint == made.fingerprint
  assert tokenizers.train(name, DOCUMENTS, SIZES.get(name, 500)).fingerprint == made.fingerprint


@pytest.mark.parametrize('name', hostile.FAMILIES)
def test_the_bytes_of_tokens_join_to_the_text(name):
  tokenizer = hostile.family(name)
  text = b'01101' if name == 'blocks' else hostile.TEXT
  ids = tokenizer.encode(text)
  found = [tokenizer.token_bytes(i) for i in ids.tolist()]
  if name in ('gzip', 'static_ac'):
    assert set(found) == {None}
  elif tokenizer.lossless:
    assert b''.join(found) == text
    assert [len(piece) for piece in found] == tokenizer.byte_lengths(ids).tolist()
  else:
    assert found == [tokenizer.decode([i]) for i in ids.tolist()]
  with pytest.raises(InputError, match='out of range'):
    tokenizer.token_bytes(tokenizer.vocab_size)


@pytest.mark.parametrize('name', hostile.FAMILIES)
def test_batches_are_documents_one_by_one(name):
  tokenizer, texts = hostile.family(name), [b'0110', b'', b'1']
  seen = []
  tokenizer.progress = seen.append
  rows = tokenizer.encode_batch(texts)
  assert seen == [4, 0, 1]
  assert tokenizer.decode_batch(rows) == [tokenizer.decode(row) for row in rows]
  del tokenizer.progress
  for coded, row, text in zip(tokenizer.cover_batch(texts), rows, texts, strict=True):
    np.testing.assert_array_equal(coded.ids, row)
    assert coded.byte_lengths.sum() == coded.size == len(text)


def test_stepped_tokenizers_do_the_same_side_by_side(tmp_path):
  model = random_model()
  for name, codec in codecs(model).items():
    tokenizers.save(codec, tmp_path / name)
    again = tokenizers.load(tmp_path / name)
    assert again.fingerprint == codec.fingerprint
    assert again.preferred_batch == model.sizes.streams
    seen = []
    again.progress = seen.append
    rows = again.encode_batch([b'abc', b'', TEXT[:50]])
    assert 53 <= sum(seen) <= 56  # the end of a text may count as a byte
    assert again.decode_batch(rows) == [b'abc', b'', TEXT[:50]]
    assert again.token_bytes(7) is None
    assert strings.token_strings(again)[7] == '<special_7>'
    with pytest.raises(InputError, match='text cannot be sampled'):
      again.windows()


@pytest.mark.parametrize('name', ['ac', 'exact32'])
def test_visual_unicode_takes_a_tokenizer_with_a_byte_model(name, tmp_path):
  from experiments.visual_unicode import text

  codec = codecs(random_model())[name]
  tokenizers.save(codec, tmp_path / name)
  found = text._tokenizer('stdlib', str(tmp_path / name), 0, 0, 0, '', 0.0)
  assert found.fingerprint == codec.fingerprint
  assert len(text.strings_of(found, 'text')) == found.vocab_size


def test_no_learned_piece_crosses_a_document_border():
  parts = [b'ab', b'cd'] * 50
  for name in ('bpe', 'bpe_unsplit'):
    assert set(tokenizers.train(name, parts, 300).pieces[256:]) == {b'ab', b'cd'}
  bpe = tokenizers.train('bpe_unsplit', parts, 300)
  assert bpe.pieces[256:] == [b'ab', b'cd']
  assert tokenizers.train('bpe_unsplit', [b''.join(parts)], 300).vocab_size > 258
  assert tokenizers.train('lzw', [b'a', b'a', b'b'], 300).vocab_size == 256
  assert tokenizers.train('lzw', [b'aab'], 300).pieces[256:] == [b'ab']
  assert tokenizers.train('blocks', [b'aba', b'baba'], 258).pieces[256:] == [b'ba', b'ab']


def naive_bpe(texts, size):
  """Merges by counting all documents anew each time."""
  rows, pieces = [list(text) for text in texts], [bytes([byte]) for byte in range(256)]
  while len(pieces) < size:
    counts = collections.Counter()
    for row in rows:
      free = {}  # where a pair may begin again
      for i, pair in enumerate(zip(row, row[1:])):
        if free.get(pair, 0) <= i:
          counts[pair], free[pair] = counts[pair] + 1, i + 2
    best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
    if best is None or counts[best] < 2:
      return pieces
    rows = [merged(row, best, len(pieces)) for row in rows]
    pieces.append(pieces[best[0]] + pieces[best[1]])
  return pieces


def merged(row, pair, made):
  out, i = [], 0
  while i < len(row):
    joined = tuple(row[i : i + 2]) == pair
    out.append(made if joined else row[i])
    i += 1 + joined
  return out


def test_bpe_of_documents_is_that_of_the_plain_algorithm():
  rng = np.random.default_rng(0)
  for _ in range(20):
    texts = [bytes(rng.choice([97, 98, 99], rng.integers(0, 30)).tolist()) for _ in range(8)]
    found = tokenizers.train('bpe_unsplit', texts, 300)
    assert found.pieces == naive_bpe(texts, 300)


def test_options_are_those_of_the_family():
  bpe = tokenizers.train('sentencepiece', DOCUMENTS, 500, kind='bpe')
  assert bpe.fingerprint != tokenizers.train('sentencepiece', DOCUMENTS, 500).fingerprint
  with pytest.raises(InputError, match='sentencepiece has no option size: it has kind'):
    tokenizers.train('sentencepiece', DOCUMENTS, 500, size=3)
  with pytest.raises(InputError, match='gzip has no option kind: it has none'):
    tokenizers.train('gzip', DOCUMENTS, 256, kind='bpe')


@pytest.mark.parametrize('name', ['byte_level', 'equal_info', 'no such'])
def test_a_name_that_is_not_trained_is_refused(name):
  with pytest.raises(
    InputError, match=f"by the name '{name}': use blocks, boundless, bpe, bpe_unsplit, bytes"
  ):
    tokenizers.train(name, DOCUMENTS, 500)


@pytest.mark.parametrize(
  ('name', 'size', 'message'),
  [
    ('bytes', 255, 'ask for 256 or more'),
    ('blocks', 255, 'ask for 256 or more'),
    ('gzip', 300, r'use one of \(256, 4096, 65536\)'),
    ('static_ac', 300, r'use one of \(256, 4096, 65536\)'),
  ],
)
def test_sizes_that_a_family_cannot_have_are_refused(name, size, message):
  with pytest.raises(InputError, match=message):
    tokenizers.train(name, DOCUMENTS, size)


def test_neither_the_table_nor_an_ordinary_file_brings_jax(tmp_path):
  tokenizers.save(hostile.family('bpe'), tmp_path / 'bpe')
  program = (
    'import sys; from lib import tokenizers; tokenizers.load(sys.argv[1])\n'
    'print({"jax", "flax", "sentencepiece", "tokenizers"} & set(sys.modules))'
  )
  command = [sys.executable, '-c', program, str(tmp_path / 'bpe')]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  assert done.stdout.strip() == 'set()'


# --- files of an older commit ---------------------------------------------------------------------


@pytest.mark.parametrize('name', sorted(FACTS))  # those of its families
def test_a_file_of_an_older_commit_is_read(name):
  facts = FACTS[name]
  tokenizer = tokenizers.load(WRITTEN / name)
  assert tokenizer.fingerprint == facts['fingerprint']
  text = facts['text'].encode()
  assert tokenizer.decode(tokenizer.encode(text)) == text
  if name not in ('ac', 'stepped_equal_info'):  # their codes depend on the machine's floats
    assert tokenizer.encode(text).tolist() == facts['ids']
    assert tokenizer.decode(facts['ids']) == text


def test_an_older_bpe_merges_across_spaces():
  assert tokenizers.load(WRITTEN / 'bpe').rule == 'none'


def test_a_container_of_an_older_commit_is_read():
  content = (WRITTEN / 'text.tokens').read_bytes()
  assert container.from_bytes(tokenizers.load(WRITTEN / 'bpe'), content) == hostile.TEXT


def test_a_family_of_files_that_is_no_more_is_refused_by_name(tmp_path):
  for name in ('unheard-of', 'bytes', 'bpe_unsplit'):  # the latter two are names to train by
    files.write(tmp_path / 'file', name, hostile.family('bpe').state())
    with pytest.raises(InputError, match=f"contains a '{name}' tokenizer: known are ac, blocks"):
      tokenizers.load(tmp_path / 'file')


def test_content_tells_a_file_whatever_its_name(tmp_path):
  for name in ('file', 'file.model', 'file.json'):
    (tmp_path / name).write_bytes(hostile.tokenizer_json())
    assert tokenizers.load(tmp_path / name).family == 'byte_level'
    tokenizers.save(hostile.family('bpe'), tmp_path / name)
    assert tokenizers.load(tmp_path / name).family == 'bpe'


def test_sizes_are_checked_beforehand_where_that_needs_no_decoding():
  bpe = hostile.family('bpe')
  with pytest.raises(InputError, match='a text comes back as 4 bytes where 5 should be'):
    documents.check_size(bpe, bpe.encode(b'0110'), 5, 'a text')
  documents.check_size(hostile.family('gzip'), np.zeros(3, np.int32), 5, 'a text')
