# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of other projects: exact where they cut bytes as they are, else as they are."""

import base64
import copy
import io
import json
import pathlib
import re
import time

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
  AddedToken,
  Regex,
  Tokenizer,
  models,
  normalizers,
  pre_tokenizers,
  processors,
)

from experiments.tools import corpus
from lib import tokenizers
from lib.data import encoded, pipeline
from lib.errors import InputError
from lib.evals import ngram
from lib.tokenizers import container, documents
from lib.tokenizers.foreign import ByteLevel, Foreign, Metaspace
from lib.tokenizers.sentencepiece import train_sentencepiece
from lib.tokenizers.wordpiece import WordPiece
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


NASTY = "A  b\r\n\tÀ\u00a0\ufb01 e\u0301\u200d漢\U0001f600 1,234.5 it's\x00 \u2581_ "
SPACES = json.loads(
  (pathlib.Path(__file__).parents[1] / 'fixtures/hf/llama/tokenizer.json').read_text()
)  # Llama 2's rules
WITH_METASPACE = SPACES | {
  'normalizer': None,
  'pre_tokenizer': dict(type='Metaspace', replacement='▁', prepend_scheme='always', split=True),
}


@pytest.mark.parametrize('rules', [SPACES, WITH_METASPACE], ids=['normalizer', 'metaspace'])
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=12), text=st.text('Them odlx,▁é', max_size=12))
def test_spaces_that_are_written_as_characters_are_bytes(rules, data, text):
  content = json.dumps(rules).encode()
  made, whole = Metaspace(content), Foreign(content, '.json')
  for one in (data, text.encode(), b' ' + data):
    ids = made.encode(one)
    assert made.decode(ids) == one
    assert b''.join(made.pieces[i] for i in ids) == one
  # The library puts a space before a text; otherwise the ids are its own.
  text = text.replace('▁', '').lstrip(' ')
  if text:
    assert made.encode(f' {text}'.encode()).tolist() == whole.encode(text.encode()).tolist()


def test_files_that_change_more_than_spaces_are_refused():
  for key, value in {
    'normalizer': {'type': 'Lowercase'},
    'pre_tokenizer': {'type': 'Whitespace'},
    'model': SPACES['model'] | {'byte_fallback': False},
  }.items():
    with pytest.raises(InputError, match='change text'):
      Metaspace(json.dumps(SPACES | {key: value}).encode())
  with pytest.raises(InputError, match='change text'):  # spaces are dropped
    Metaspace(json.dumps(SPACES | {'normalizer': None}).encode())


PREFIX = pre_tokenizers.ByteLevel(add_prefix_space=False)
CUTS = {
  'bytes': [PREFIX],
  'regex': [
    pre_tokenizers.Split(Regex(r'\s+|\w+'), 'isolated'),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
  ],
  'digits': [pre_tokenizers.Digits(True), pre_tokenizers.Punctuation('contiguous'), PREFIX],
  'blocks': [pre_tokenizers.Sequence([pre_tokenizers.UnicodeScripts(), PREFIX])],
}
CHANGES = {
  'a space before': [pre_tokenizers.ByteLevel()],
  'no spaces': [pre_tokenizers.WhitespaceSplit(), PREFIX],
  'no numbers': [pre_tokenizers.Split(Regex(r'\d'), 'removed'), PREFIX],
  'no punctuation': [pre_tokenizers.Punctuation('removed'), PREFIX],
  'Metaspace': [pre_tokenizers.Metaspace(prepend_scheme='never'), PREFIX],
  'bytes of bytes': [PREFIX, PREFIX],
}


@pytest.mark.parametrize('name', [*CUTS, *CHANGES])
def test_the_rules_of_a_file_say_whether_it_keeps_every_text(name, tmp_path):
  steps = pre_tokenizers.Sequence((CUTS | CHANGES)[name])
  content = changed(lambda t: setattr(t, 'pre_tokenizer', steps))
  found = tokenizers.load(written(tmp_path, content))
  assert found.lossless == (name in CUTS)
  library = Tokenizer.from_str(content.decode())
  ids = library.encode(NASTY).ids
  # By the library itself, which is not asked: its tokens join to the text where the rules say so.
  joined = b''.join(EXACT.pieces[i] for i in ids)
  assert (joined == NASTY.encode()) == (name in CUTS)
  if found.lossless:
    assert found.encode(NASTY.encode()).tolist() == ids
    assert found.fallback_bytes(NASTY.encode()) == 0


@pytest.mark.parametrize(
  'normalizer',
  [
    normalizers.Lowercase(), normalizers.NFKC(), normalizers.Strip(), normalizers.Replace('漢', ''),
    normalizers.Sequence([normalizers.Sequence([normalizers.StripAccents()])]),
  ],
  ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_a_file_that_normalizes_is_not_lossless(normalizer, tmp_path):
  content = changed(lambda t: setattr(t, 'normalizer', normalizer))
  assert not tokenizers.load(written(tmp_path, content)).lossless
  content = changed(lambda t: setattr(t, 'normalizer', normalizers.Sequence([])))
  assert tokenizers.load(written(tmp_path, content)).lossless


def test_dropout_and_sampling_of_a_file_are_off(tmp_path):
  file = json.loads(hostile.tokenizer_json())
  file['model']['dropout'] = 0.5
  found = tokenizers.load(written(tmp_path, json.dumps(file).encode()))
  assert found.encode(TEXT).tolist() == EXACT.encode(TEXT).tolist()
  pieces = [('a', -1.0), ('aa', -1.5), ('<unk>', -9.0)]
  library = Tokenizer(models.Unigram(pieces, 2))
  library.model.alpha, library.model.nbest_size = 0.1, 64
  sampled = tokenizers.load(written(tmp_path, library.to_str().encode()))
  assert len({tuple(sampled.encode(b'a' * 40)) for _ in range(9)}) == 1


TAKING = AddedToken('<x>', lstrip=True, rstrip=True)
WITH_X = ByteLevel(changed(lambda t: t.add_tokens([TAKING])))


def test_only_the_spaces_that_a_token_takes_are_written_in_bytes():
  library = changed(lambda t: t.add_tokens([TAKING]))
  text = TEXT * 20 + b'. <x>'
  ids = Tokenizer.from_str(library.decode()).encode(text.decode()).ids
  assert WITH_X.encode(text).tolist() == [*ids[:-1], WITH_X.byte_ids[ord(' ')], ids[-1]]
  texts = [b'the  <x> words', b'the words', b'the \xff words', b'']
  assert [WITH_X.fallback_bytes(text) for text in texts] == [3, 0, 1, 0]
  assert documents.restored(WITH_X, texts) == (1, 1, 0, 4 / 34)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(['<x>', ' ', 'the', '\n', 'é漢', '\U0001f600', 'w']), max_size=12))
def test_whatever_stands_around_such_tokens_comes_back(parts):
  text = ''.join(parts).encode()
  ids, lengths = WITH_X.cover(text)
  assert WITH_X.decode(ids) == text
  assert lengths.sum() == len(text)
  spaces = len(b''.join(re.findall(rb'\s*<x>\s*', text))) - 3 * text.count(b'<x>')
  assert WITH_X.fallback_bytes(text) == spaces
  assert np.count_nonzero(ids == WITH_X.vocab_size - 1) == text.count(b'<x>')


def test_tokens_without_places_of_their_own_are_found_in_order():
  class Odd(WordPiece):
    def encode_text(self, text):
      return [i for i in super().encode_text(text) if self.pieces[i] != b'b']

  whole = hostile.family('wordpiece')
  odd = Odd(whole.pieces, whole.continues)
  text = b'a b the \xc3\xa9 b'
  assert odd.decode(odd.encode(text)) == text
  assert odd.fallback_bytes(text) > 0


def test_a_huge_id_is_cheap():
  file = json.loads(hostile.tokenizer_json())
  file['model']['vocab']['zz'] = 2**24 - 1
  start = time.process_time()
  assert ByteLevel(json.dumps(file).encode()).vocab_size == 2**24
  assert time.process_time() - start < 8  # once 15


def test_an_expression_without_end_gets_a_sentence_and_no_backtrace(tmp_path, capfd):
  steps = [pre_tokenizers.Split(Regex('(a+)+$'), 'isolated'), *CUTS['regex'][1:]]
  content = changed(lambda t: setattr(t, 'pre_tokenizer', pre_tokenizers.Sequence(steps)))
  tokenizer = tokenizers.load(written(tmp_path, content))
  with pytest.raises(InputError, match=r'cannot cut this text: .*retry-limit'):
    tokenizer.encode(b'a' * 60 + b'!')
  assert 'stack backtrace' not in capfd.readouterr().err


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


RANKS = b''.join(base64.b64encode(bytes([i])) + b' %d\n' % i for i in range(256))


def trained_model(**options) -> bytes:
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXT.decode().splitlines() * 20), model_writer=model,
    hard_vocab_limit=False, minloglevel=2, **{'vocab_size': 40} | options,
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
    (
      'a.json',
      b'{"config": {"pattern": "a"}, "vocab": [{"rank": 0}]}',
      'is not a complete tekken.json',
    ),
    ('a.json', b'{"tokenizer_class": "GPT2Tokenizer"}', 'settings of a tokenizer alone'),
    ('a.json', b'{"a": 0, "b": 1}', 'a vocabulary alone'),
    ('a.json', b'{"model_type": "llama"}', 'the config.json of a model'),
    ('a.json', b'{"model": "llama"}', "has no 'model'|is JSON, but no"),
    ('a.model', RANKS, 'ranks of tiktoken'),
    ('a.model', b'#version: 0.2\na b\n', 'the merges of a BPE alone'),
    ('a.model', b'version https://git-lfs.github.com/spec/v1\noid', 'git lfs pull'),
  ],
)
def test_what_is_no_tokenizer_is_named(tmp_path, name, content, message):
  path = written(tmp_path, content, name) if content is not None else tmp_path / name
  with pytest.raises(InputError, match=message) as caught:
    tokenizers.load(path)
  assert str(path) in str(caught.value)


@pytest.mark.parametrize(
  'name', ['mine.json', 'mine.model', 'tokenizer.JSON', 'tokenizer.model.v1']
)
def test_what_a_file_is_its_content_says_alone(name, tmp_path):
  mine = hostile.family('bpe')
  tokenizers.save(mine, tmp_path / name)
  assert tokenizers.load(tmp_path / name).fingerprint == mine.fingerprint
  model = hostile.family('sentencepiece')
  for content in (b'\xef\xbb\xbf' + hostile.tokenizer_json(), model.model_proto):
    assert tokenizers.load(written(tmp_path, content, name)).lossless


def test_a_model_with_rules_for_characters_is_not_lossless(tmp_path):
  options = dict(
    vocab_size=330, byte_fallback=True, required_chars='\u2581', remove_extra_whitespaces=False
  )
  options |= dict(add_dummy_prefix=False, allow_whitespace_only_pieces=True)
  (tmp_path / 'rules.tsv').write_text('D A\tA\n')
  rules = trained_model(normalization_rule_tsv=str(tmp_path / 'rules.tsv'), **options)
  found = tokenizers.load(written(tmp_path, rules, 'spiece.model'))
  assert found.decode(found.encode(b'some\r\nwords')) == b'some\nwords'
  assert not found.lossless
  with pytest.raises(InputError, match='does not give these bytes back'):
    container.to_bytes(found, b'some\r\nwords')
  same = trained_model(normalization_rule_name='identity', **options)
  assert tokenizers.load(written(tmp_path, same, 'spiece.model')).lossless
