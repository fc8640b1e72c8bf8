# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of other projects: exact where they cut bytes as they are, else as they are."""

import copy
import io

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from experiments.tools import corpus
from lib import tokenizers
from lib.data import encoded, pipeline
from lib.errors import InputError
from lib.evals import ngram
from lib.tokenizers import documents
from lib.tokenizers.foreign import ByteLevel, Foreign
from lib.tokenizers.sentencepiece import train_sentencepiece
from tests.helpers import hostile

EXACT = hostile.family('byte_level')
LOWER = hostile.family('foreign')
TEXT = hostile.TEXT


def changed(change) -> bytes:
  """The exact file after a change of the library's object."""
  tokenizer = Tokenizer.from_str(hostile.tokenizer_json().decode())
  change(tokenizer)
  return tokenizer.to_str().encode()


def written(tmp_path, content, name='tokenizer.json'):
  path = tmp_path / name
  path.write_bytes(content)
  return path


@settings(max_examples=150, deadline=None)
@given(st.binary() | st.text(st.sampled_from(" the\nTHEé中'1\U0001f600")).map(str.encode))
def test_any_bytes_come_back_and_are_covered(data):
  ids, lengths = EXACT.cover(data)
  assert EXACT.decode(ids) == data
  assert lengths.sum() == len(data)
  _, lengths = LOWER.cover(data)
  assert lengths.sum() == len(data)
  assert (lengths >= 0).all()


def test_ids_are_those_of_the_library():
  library = Tokenizer.from_str(hostile.tokenizer_json().decode())
  assert EXACT.encode(TEXT).tolist() == library.encode(TEXT.decode()).ids
  assert EXACT.vocab_size == library.get_vocab_size()


def test_a_file_is_exact_where_it_can_be(tmp_path):
  assert isinstance(tokenizers.load(written(tmp_path, hostile.tokenizer_json())), ByteLevel)
  lower = tokenizers.load(written(tmp_path, hostile.tokenizer_json(lower=True)))
  assert isinstance(lower, Foreign)
  assert not lower.lossless
  assert lower.decode(lower.encode(b'The THE')) == b'the the'
  back = documents.restored(lower, [b'the words', b'The words'])
  assert back == (17 / 18, 0.5, 0, 0)
  spaced = changed(lambda t: setattr(t, 'pre_tokenizer', pre_tokenizers.ByteLevel()))
  assert isinstance(tokenizers.load(written(tmp_path, spaced)), Foreign)  # a space is put before


def test_truncation_padding_and_special_tokens_are_left_out():
  def change(tokenizer):
    tokenizer.add_special_tokens(['[CLS]'])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    number = tokenizer.token_to_id('[CLS]')
    tokenizer.post_processor = processors.TemplateProcessing('[CLS] $A', None, [('[CLS]', number)])

  more = ByteLevel(changed(change))
  assert more.encode(TEXT).tolist() == EXACT.encode(TEXT).tolist()
  assert more.decode(more.encode(b'a [CLS] b')) == b'a [CLS] b'


def test_a_token_that_takes_spaces_with_it_is_written_in_bytes():
  greedy = AddedToken('<x>', lstrip=True, rstrip=True)
  tokenizer = ByteLevel(changed(lambda t: t.add_tokens([greedy])))
  assert tokenizer.decode(tokenizer.encode(b'the  <x> words')) == b'the  <x> words'
  # The whole text is written in bytes for one token, and counted.
  texts = [b'the  <x> words', b'the words', b'the \xff words', b'']
  assert [tokenizer.fallback_bytes(text) for text in texts] == [14, 0, 1, 0]
  assert documents.restored(tokenizer, texts) == (1, 1, 0, 15 / 34)


def test_unknown_text_is_counted_and_text_without_tokens_is_the_unknown_token():
  def words():
    tokenizer = Tokenizer(models.WordLevel({'a': 0, 'b': 1, '[UNK]': 2}, unk_token='[UNK]'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return Foreign(tokenizer.to_str().encode(), '.json')

  tokenizer = words()
  assert [part.tolist() for part in tokenizer.cover(b'   ')] == [[2], [3]]  # the library: no token
  back = documents.restored(tokenizer, [b'a b', b'a xyz', b'   '])
  assert back.share_documents == 1 / 3
  assert back.share_unknown == (4 + 3) / 11
  unknown = {
    'BPE without one': (Tokenizer(models.BPE({'a': 0, 'b': 1}, [])), None),
    'WordPiece': (Tokenizer(models.WordPiece({'b': 0, '?': 1}, unk_token='?')), 1),
    'Unigram': (Tokenizer(models.Unigram([('b', -1.0), ('<unk>', 0.0)], 1)), 1),
  }
  for name, (library, expected) in unknown.items():
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    found = Foreign(library.to_str().encode(), '.json')
    assert found.unknown_ids == (frozenset() if expected is None else {expected}), name
    ids, lengths = found.cover(b'\n \t')
    assert (ids.tolist(), lengths.tolist()) == ([expected or 0], [3])


def test_every_byte_stays_in_the_denominator(tmp_path):
  # Half of the test text are spaces, which give no token: bits per byte are of all of it.
  tokenizer = Tokenizer(models.WordLevel({'a': 0, '[UNK]': 1}, unk_token='[UNK]'))
  tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
  words = Foreign(tokenizer.to_str().encode(), '.json')
  test = [b'a a', b'   ', b'\n\n\n', b'a', b'']
  assert sum(words.cover(document)[1].sum() for document in test) == 10
  options = {'batch_size': 2, 'length': 3, 'seed': 0, 'repeat': False, 'shuffle': False}
  for pack in (True, False):
    found = list(pipeline.batches(test, words, pack=pack, **options))
    assert sum(batch['bytes'].sum() for batch in found) == 10
  kept = encoded.encode(tmp_path, words.fingerprint, test, words.cover_batch)
  assert kept.bytes == 10


@pytest.mark.parametrize('name', hostile.FAMILIES)
@settings(max_examples=15, deadline=None)
@given(data=st.binary(max_size=30) | st.text('a \n\u00a0é字', max_size=30).map(str.encode))
def test_coverage_adds_up_under_every_tokenizer(name, data):
  try:
    ids, lengths = hostile.family(name).cover(data)
  except InputError:  # bytes outside its alphabet
    return
  assert lengths.sum() == len(data)
  assert len(ids) > 0 or not data


@settings(max_examples=60, deadline=None)
@given(st.text('ab ', max_size=12), st.text('ab ', max_size=12))
def test_what_comes_back_is_the_longest_common_subsequence(one, other):
  table = np.zeros((len(one) + 1, len(other) + 1), int)
  for i, a in enumerate(one):
    for j, b in enumerate(other):
      table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
  assert documents._common(one.encode(), other.encode()) == table[-1, -1]


def test_what_is_dropped_is_covered_by_the_next_token_or_the_last():
  tokenizer = Tokenizer(models.WordLevel({'a': 0, 'b': 1, '[UNK]': 2}, unk_token='[UNK]'))
  tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
  words = Foreign(tokenizer.to_str().encode(), '.json')
  ids, lengths = words.cover('a  é b \xff'.encode() + b'\xff  ')
  assert ids.tolist() == [0, 2, 1, 2, 2]
  # 'a' | '  é' | ' b' | ' ÿ' | the byte that is no UTF-8, and what is left
  assert lengths.tolist() == [1, 4, 2, 3, 3]
  assert words.cover(b'')[0].size == 0


def test_bits_per_byte_of_what_is_not_lossless_are_of_the_text_as_it_was():
  tokenizer = Tokenizer(models.WordLevel({'a': 0, '[UNK]': 1}, unk_token='[UNK]'))
  tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
  words = Foreign(tokenizer.to_str().encode(), '.json')
  text = b'a bcd' * 100
  [estimate] = ngram.token_loss(words, [text], [text], [0])
  ids = words.encode(text)
  total = ngram.NGram(ids, 0, 2).nats(ids).sum()
  assert estimate.value == pytest.approx(total / len(text))
  options = {'batch_size': 1, 'length': 300, 'seed': 0, 'repeat': False}
  batch = next(iter(pipeline.batches([text], words, **options)))
  assert batch['bytes'].sum() == len(text)


def trained_model(**options) -> bytes:
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXT.decode().splitlines() * 20), model_writer=model, vocab_size=40,
    hard_vocab_limit=False, minloglevel=2, **options,
  )  # fmt: skip
  return model.getvalue()


def test_any_sentencepiece_model_is_read(tmp_path):
  tokenizer = tokenizers.load(written(tmp_path, trained_model(), 'spiece.model'))
  assert isinstance(tokenizer, Foreign)
  line = 'A  text of été words'.encode()
  ids, lengths = tokenizer.cover(line)
  assert lengths.sum() == len(line)
  assert tokenizer.decode(ids) == 'A text of été words'.encode()  # one space
  exact = train_sentencepiece([TEXT * 20], 330, 'bpe')
  found = tokenizers.load(written(tmp_path, exact.model_proto, 'exact.model'))
  assert found.fingerprint == exact.fingerprint


def test_a_corpus_keeps_its_tokenizer_as_one_of_ours(tmp_path):
  path = written(tmp_path, hostile.tokenizer_json())
  book = written(tmp_path, TEXT * 9, 'book.txt')
  job = corpus.begin(str(book), 'train', str(path), str(tmp_path / 'corpus'), 1, None)
  path.unlink()
  assert job.open()[1].fingerprint == EXACT.fingerprint


@pytest.mark.parametrize('tokenizer', [EXACT, LOWER], ids=['exact', 'lower'])
def test_kept_in_a_file_of_ours_and_copied(tokenizer, tmp_path):
  tokenizers.save(tokenizer, tmp_path / 'mine')
  for same in (tokenizers.load(tmp_path / 'mine'), copy.deepcopy(tokenizer)):
    assert same.fingerprint == tokenizer.fingerprint
    np.testing.assert_array_equal(same.encode(TEXT), tokenizer.encode(TEXT))


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('a.json', b'{', 'cannot read this as a tokenizer.json'),
    ('a.json', b'\xff', 'is not a tokenizer file'),
    ('a.model', b'no model', 'is not a tokenizer file'),
    ('a.model', b'\nno model', 'are no SentencePiece model'),
    ('a.json', Tokenizer(models.BPE()).to_str().encode(), 'has 0 ids'),
    ('a.json', None, 'No such file'),
  ],
)
def test_what_is_no_tokenizer_is_named(tmp_path, name, content, message):
  path = written(tmp_path, content, name) if content is not None else tmp_path / name
  with pytest.raises(InputError, match=message):
    tokenizers.load(path)
