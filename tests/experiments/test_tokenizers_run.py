# SPDX-License-Identifier: Apache-2.0
"""The recipe of tokenizers: a smoke run, its claims, files and texts of one's own."""

import base64

import jax
import pytest
import regex

from configs import common, tokenizers
from experiments.recipe import Run
from experiments.tokenizers import compare, parity
from experiments.tokenizers.recipe import RECIPE
from lib import memory
from lib.data import sources
from lib.errors import InputError
from lib.parallel import sharding
from lib.report import plots
from lib.report.results import select
from lib.tokenizers import pretokenizers, registry
from lib.tokenizers.bpe import train_bpe
from tests.helpers import addresses, byte_models


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
  """A folder of three texts, the last twice as dear as the first for a tokenizer of the first."""
  folder = tmp_path_factory.mktemp('texts')
  text = byte_models.sources()
  for name, part in (('a', text[:9000]), ('b', text[9000:30_000]), ('c', text[:9000].swapcase())):
    (folder / f'{name}.txt').write_bytes(part)
  return folder


@pytest.fixture(scope='module')
def smoke(texts, tmp_path_factory):
  mesh = sharding.make_mesh({'data': -1}, jax.devices()[:1])
  run = Run(tmp_path_factory.mktemp('tokenizers'), mesh)
  config = tokenizers.get_config('smoke')
  config.parity.texts = str(texts)
  RECIPE.check(config)
  rows = [row for table in RECIPE.chosen(config) for row in table.measure(config, run)]
  return rows, config, run


def test_claims_and_published_numbers_address_rows_of_a_run(smoke):
  assert not addresses.faults('tokenizers', smoke[0])


def test_every_table_has_a_picture(smoke, tmp_path):
  rows, config, run = smoke
  for table in RECIPE.chosen(config):
    assert plots.save(tmp_path, table.pictures(rows, config, run))


def test_without_texts_of_languages_parity_is_not_run(smoke):
  assert not parity.TABLE.measure(tokenizers.get_config('smoke'), smoke[2])


def test_tokenizers_within_words_stay_below_the_bound_and_the_first_transition_is_bpe(smoke):
  of = lambda column, **where: select(smoke[0], 'compression', column, **where)
  rules = {'bpe': 'words', 'superbpe': 'digits_punct', 'boundless': 'digits_punct'}
  bounds = {row.where['rule']: row.measured for row in of('bytes_per_token', tokenizer='bound')}
  text = [*map(bytes.decode, sources.sample(sources.open_source('stdlib/prose', 'test'), 40_000))]
  for rule, bound in bounds.items():  # as the library `regex` cuts the text
    cuts = sum(
      len([piece for piece in regex.split(f'({pretokenizers.RULES[rule]})', one) if piece])
      for one in text
    )
    assert bound == pytest.approx(sum(len(one.encode()) for one in text) / cuts)
  assert {*bounds} == {*rules.values()}
  shares = of('share_of_own_bound')
  assert {row.where['tokenizer'] for row in shares} == {*rules}
  for row in shares:
    assert 0 < row.measured < 1
    [own] = of('bytes_per_token', **row.where)
    assert row.measured == pytest.approx(own.measured / bounds[rules[row.where['tokenizer']]])
  for row in of('share_of_bound'):
    [own] = of('bytes_per_token', **row.where)
    assert row.measured == pytest.approx(own.measured / bounds['words'])
  assert select(smoke[0], 'transition', 'fewer_tokens', share=1.0)[0].measured == 0


@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_builds(scale, texts, monkeypatch):
  monkeypatch.setattr(memory, 'of_host', lambda: 2**36)  # that of a host
  config = tokenizers.get_config(scale)
  config.compare.texts = str(texts)  # read faster than all text of the standard library
  if scale == 'paper':  # its text is not here
    config.quality.source = 'ngram:stdlib,length=18000'
  RECIPE.check(config)


def test_files_and_texts_of_ones_own_are_compared(texts, smoke, tmp_path):
  mine = train_bpe([(texts / 'a.txt').read_bytes()], 400)
  registry.save(mine, tmp_path / 'mine')
  (tmp_path / 'theirs.json').write_text(train_bpe([b'to be or not to be'], 300).to_json())
  config = tokenizers.get_config('smoke,tables=compare')
  lines = [b'%s %d' % (base64.b64encode(piece), i) for i, piece in enumerate(mine.pieces)]
  (tmp_path / 'ranks.tiktoken').write_bytes(b'\n'.join(lines))
  files = 'mine', 'theirs.json', 'ranks.tiktoken:words'
  config.compare.tokenizers = tuple(str(tmp_path / name) for name in files)
  config.compare.texts = str(texts)
  config.compare.parallel = True
  RECIPE.check(config)
  rows = compare.measure(config, smoke[2])
  of = lambda column, **where: select(rows, 'compare', column, **where)[0]
  found = {name: of('bytes_per_token', tokenizer='mine', text=name) for name in 'abc'}
  text = (texts / 'a.txt').read_bytes()
  ids = [mine.encode(block) for block in (text[:8192], text[8192:])]
  assert found['a'].measured == pytest.approx(9000 / sum(map(len, ids)), rel=0.01)
  assert found['a'].note == '9,000 bytes in 3 blocks; rule words'
  assert found['a'].measured > found['c'].measured
  worst = of('parity_worst', tokenizer='mine', text='all').measured
  tokens = [size / found[name].measured for name, size in (('a', 9000), ('b', 21_000), ('c', 9000))]
  assert worst == pytest.approx(max(tokens) / min(tokens), rel=1e-9)
  for name in ('mine', 'theirs', 'ranks'):
    assert of('share_restored', tokenizer=name, text='all').measured == 1
    assert 0 < of('renyi_efficiency', tokenizer=name, text='a').measured < 1
    assert 0 < of('gini', tokenizer=name, text='all').measured < 1


def test_mistakes_are_named_before_anything_is_measured(texts, tmp_path):
  for name in ('one', 'two'):
    registry.save(train_bpe([b'to be or not to be'], 260), tmp_path / name)
  one, two = str(tmp_path / 'one'), str(tmp_path / 'two')
  (tmp_path / 'single').mkdir()
  (tmp_path / 'single/only.txt').write_bytes(b'text ' * 500)
  for name, other in (('short', b'two\nlines\n'), ('wide', b'\xc3\xa9' * 500)):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'one.txt').write_bytes(b'a line\n' * 500)
    (tmp_path / name / 'other.txt').write_bytes(other)
  for changes, message in (
    ({'compare.tokenizers': (one, two)}, 'one and .*two are the same tokenizer; give it once'),
    ({'compare.tokenizers': ('bpe', 'bpe')}, 'names a tokenizer twice'),
    ({'compare.tokenizers': ('no such',)}, "'no such' is not the file of a saved tokenizer"),
    ({'compare.texts': str(tmp_path / 'single')}, 'two or more are needed'),
    ({'parity.texts': str(tmp_path / 'single')}, 'parity.texts: .* two or more are needed'),
    ({'parity.train_texts': str(texts)}, 'of no use without parity.texts'),
    ({'parity.texts': str(tmp_path / 'short')}, "'other' has 2 lines; 3 or more"),
    ({'compare.texts': str(tmp_path / 'short')}, 'has too little text of its own'),
    (
      {
        'compare.tokenizers': (one,),
        'compare.texts': str(tmp_path / 'wide'),
        'compare.text_bytes': 1,
      },
      "'other' has no text in its first bytes",
    ),
    (
      {'quality.source': 'ngram:stdlib/prose', 'quality.train_bytes': 10**12},
      'quality.source .* take 4,000 GB of memory or more',
    ),
    ({'quality.transition': 0.9999}, 'superbpe is the same tokenizer as bpe'),
    ({'compression.texts': ('no such',)}, "compression.texts: no file matches 'no such'"),
    ({'compare.vocab_size': 255}, 'must be 256 or more; got 255'),
    (
      {'compare.tokenizers': ('wordpiece',)},
      'compare.tokenizers: wordpiece has 512 ids or more; got 400',
    ),
    (
      {'quality.tokenizers': ('bpe', 'sentencepiece'), 'quality.vocab_size': 257},
      '258 ids or more',
    ),
    ({'compare.parallel': True, 'compare.texts': str(texts)}, 'give other text to train on'),
  ):
    config = tokenizers.get_config('smoke')
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
      RECIPE.check(config)
