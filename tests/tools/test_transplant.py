# SPDX-License-Identifier: Apache-2.0
"""The command: models for other tokenizers, for more tokens and for fewer; what is refused."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tokenizers as library

from lib import language_model
from lib.language_model import TrainedModel
from lib.tokenizers import registry
from lib.tokenizers.foreign import ByteLevel
from lib.transplant import vocabularies
from tests.helpers import byte_models
from tests.language_model.test_huggingface import own

FIXTURES = pathlib.Path(__file__).parents[1] / 'fixtures/hf'
TEXT = byte_models.sources()[:6000]
# In a process of its own, as other commands have flags of the same names.
PROGRAM = """
import sys
from absl import flags
from experiments.tools import transplant
from lib.errors import InputError
defaults = {name: flags.FLAGS[name].default for name in flags.FLAGS}
for line in sys.stdin.read().splitlines():
  flags.FLAGS.unparse_flags()
  for name, value in defaults.items():
    flags.FLAGS[name].value = value
  flags.FLAGS(['transplant', *line.split()])
  try:
    transplant.execute()
  except InputError as error:
    print('refused:', error)
  print('---')
"""


def like_sentencepiece(size):
  """The model of a tokenizer.json with ▁ for spaces and a token for each byte."""
  trained = library.Tokenizer(library.models.BPE())
  trained.normalizer = library.normalizers.Replace(' ', '▁')
  most = library.trainers.BpeTrainer(vocab_size=size - 259, show_progress=False)
  trained.train_from_iterator(TEXT.decode().split('\n'), most)
  model = json.loads(trained.to_str())['model']
  names = ['<s>', '</s>', '<unk>', *(f'<0x{byte:02X}>' for byte in range(256))]
  names += sorted(model['vocab'], key=model['vocab'].get)
  assert len(names) == size
  return model | {
    'vocab': {name: i for i, name in enumerate(names)},
    'unk_token': '<unk>', 'byte_fallback': True,
  }  # fmt: skip


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  """A folder with all that the command wrote, and what it printed by name of the folder."""
  at = tmp_path_factory.mktemp('transplant')
  (at / 'text.txt').write_bytes(TEXT)
  (at / 'few.txt').write_bytes(TEXT[:200])
  made = registry.train('bpe', [TEXT], 446)
  registry.save(made, at / 'ours')
  theirs = library.Tokenizer.from_str(made.to_json())
  theirs.add_special_tokens(['</s>', '<s>'])  # not in the order of the fixtures
  theirs.save(str(at / 'theirs.json'))
  spaces = json.loads((FIXTURES / 'llama/tokenizer.json').read_text())
  metaspace = {'type': 'Metaspace', 'replacement': '▁', 'prepend_scheme': 'first', 'split': False}
  for name, changes in {
    'spaces': {'normalizer': None, 'pre_tokenizer': metaspace},
    'lower': {'normalizer': {'type': 'Lowercase'}},
  }.items():
    (at / f'{name}.json').write_text(json.dumps(spaces | changes))
  (at / 'larger.json').write_text(json.dumps(spaces | {'model': like_sentencepiece(448)}))
  shutil.copytree(FIXTURES / 'llama', at / 'lower')
  shutil.copy(at / 'lower.json', at / 'lower/tokenizer.json')
  (at / 'empty.txt').touch()
  model = own(tokenizer=registry.train('bpe', [TEXT[:3000]], 448), position='rotary', norm='rms',
              gated=True, activation='silu')  # fmt: skip
  model.save(at / 'model')
  few = [piece.decode() for piece in model.tokenizer.pieces[-9:] if piece.strip() == piece]
  lines = [f'{len(few)} 2', *(f'{word} {i} 0.5' for i, word in enumerate(few))]
  (at / 'words.vec').write_text('\n'.join(lines))
  (at / 'others.vec').write_text('the-word 1 2\n')
  np.savez(at / 'bad.npz', old=np.zeros((3, 2)), new=np.zeros((4, 2)))
  mine, hf = f'--model={at}/model', f'--model={FIXTURES}'
  lines = {
    'same': f'{hf}/qwen2 --tokenizer={FIXTURES}/qwen2/tokenizer.json --method=random',
    'hf': f'{hf}/llama3 --tokenizer={at}/theirs.json --method=focus --text={at}/text.txt',
    'gpt2': f'{hf}/gpt2 --tokenizer={at}/theirs.json --method=parts',
    'mine': f'{mine} --tokenizer={at}/ours --method=tokenadapt --text={at}/text.txt',
    'words': f'{mine} --tokenizer={at}/ours --method=wechsel --vectors={at}/words.vec',
    'distilled': f'{mine} --tokenizer={at}/ours --method=distilled_parts --text={at}/few.txt',
    'expanded': f'{mine} --tokenizer={at}/ours --method=parts --expand',
    'hf_expanded': f'{hf}/qwen2 --tokenizer={at}/theirs.json --method=parts --expand',
    'trimmed': f'{mine} --trim --text={at}/few.txt',
    'hf_trimmed': f'--model={at}/hf --trim --text={at}/few.txt',
    'dry': f'{mine} --tokenizer={at}/ours --method=parts --dry_run',
    'from_spaces': f'{hf}/llama --tokenizer={at}/theirs.json --method=focus --text={at}/text.txt',
    'to_spaces': f'{hf}/llama3 --tokenizer={at}/spaces.json --method=parts',
    'larger_spaces': f'{hf}/llama3 --tokenizer={at}/larger.json --method=parts',
    'spaces_trimmed': f'--model={at}/larger_spaces --trim --text={at}/few.txt',
    'spaces_expanded': f'{hf}/llama --tokenizer={at}/larger.json --method=parts --expand',
    'mixed_expanded': f'{hf}/llama --tokenizer={at}/theirs.json --method=parts --expand',
    'lossy': f'{mine} --tokenizer={at}/lower.json --method=parts',
    'old_lossy': f'--model={at}/lower --tokenizer={at}/ours --method=parts',
    'no_model': f'--model={at}/none --tokenizer={at}/ours --method=parts',
    'no_tokenizer': f'{mine} --tokenizer={at}/none --method=parts',
    'no_file': f'{mine} --tokenizer={at}/ours --method=focus --text={at}/none',
    'empty': f'{mine} --tokenizer={at}/ours --method=distilled_parts --text={at}/empty.txt',
    'no_vectors': f'{mine} --tokenizer={at}/ours --method=focus --vectors={at}/none',
    'expanded_donor': f'{mine} --tokenizer={at}/ours --method=omp4 --donor={at}/mine --expand',
    'trim_text': f'{mine} --trim',
    'trim_expand': f'{mine} --trim --expand --text={at}/few.txt',
    'distilled_best': f'{mine} --tokenizer={at}/ours --method=distilled_best --text={at}/few.txt',
    'no_text': f'{mine} --tokenizer={at}/ours --method=focus',
    'no_donor': f'{mine} --tokenizer={at}/ours --method=omp4',
    'donor': f'{mine} --tokenizer={at}/ours --method=omp4 --donor={at}/model',
    'bad_vectors': f'{mine} --tokenizer={at}/ours --method=focus --vectors={at}/bad.npz',
    'others': f'{mine} --tokenizer={at}/ours --method=focus --vectors={at}/others.vec',
    'both': f'{mine} --trim --tokenizer={at}/ours',
    'wide': f'{mine} --tokenizer={at}/ours --method=omp17 --donor={at}/mine',
    'method': f'{mine} --tokenizer={at}/ours --method=best',
    'taken': f'{mine} --tokenizer={at}/ours --method=parts',
  }  # fmt: skip
  given = '\n'.join(
    f'{line} --out={at}/{"mine" if name == "taken" else name}' for name, line in lines.items()
  )
  command = [sys.executable, '-c', PROGRAM]
  ran = subprocess.run(command, input=given, capture_output=True, text=True, timeout=300)
  assert ran.returncode == 0, ran.stderr
  return at, dict(zip(lines, ran.stdout.split('---\n'), strict=False)), model


def load(folder):
  return language_model.load(folder)


def test_the_same_tokenizer_gives_the_same_numbers_without_the_padding(done):
  at, said, _ = done
  before, after = load(FIXTURES / 'qwen2'), load(at / 'same')
  assert (len(before.embedding_tables().input), len(after.embedding_tables().input)) == (320, 288)
  ids = [before.bos, *before.tokenizer.encode(TEXT[:20])]
  assert (after.bos, after.ends) == (before.bos, before.ends)
  assert after.module.embedding.tied
  np.testing.assert_allclose(after.logits(ids), before.logits(ids)[:, :288], atol=1e-6)
  report = json.loads((at / 'same/report.json').read_text())
  assert report['counts'] == dict(exact=286, special=2, parts=0, approximated=0, fallback=0)
  assert '"exact": 286' in said['same']


def test_a_folder_of_another_layout_keeps_its_dtype_and_its_special_tokens(done):
  at, _, _ = done
  for name, source in (('hf', 'llama3'), ('gpt2', 'gpt2')):
    before, after = load(FIXTURES / source), load(at / name)
    tables, old = after.embedding_tables(), before.embedding_tables()
    assert tables.input.dtype == old.input.dtype
    assert after.tokenizer.vocab_size == len(tables.input) == 448
    assert after.tokenizer.pieces[after.bos] == before.tokenizer.pieces[before.bos]
    assert (tables.input[after.bos] == old.input[before.bos]).all()
    assert [after.tokenizer.pieces[i] for i in after.ends] == [
      before.tokenizer.pieces[i] for i in before.ends
    ]
    report = json.loads((at / f'{name}/report.json').read_text())
    assert sum(report['counts'].values()) == 448
    assert report['counts']['special'] == 2
    assert after.provenance.config['model_type'] == before.provenance.config['model_type']
    assert np.isfinite(after.token_loss([TEXT[:50]])[0].nats).all()


def test_our_own_models_stay_ours(done):
  at, said, before = done
  for name in ('mine', 'words', 'distilled'):
    after = load(at / name)
    assert isinstance(after, TrainedModel)
    assert after.bos == after.tokenizer.vocab_size == 446
    place = {piece: i for i, piece in enumerate(before.tokenizer.pieces)}
    for i, piece in enumerate(after.tokenizer.pieces):
      if piece in place:
        assert (
          after.embedding_tables().input[i] == before.embedding_tables().input[place[piece]]
        ).all()
  assert json.loads(said['words'])['counts']['fallback'] > 20  # few words are known


def test_tokenizers_that_write_spaces_as_characters_match_by_bytes(done):
  at, _, _ = done
  spaces, characters = ('▁', '<0x0A>', 'T'), ('Ġ', 'Ċ', 'T')
  for name, source, olds, news in (
    ('from_spaces', 'llama', spaces, characters),
    ('to_spaces', 'llama3', characters, spaces),
  ):
    before, after = load(FIXTURES / source), load(at / name)
    id_of = lambda path: library.Tokenizer.from_file(str(path / 'tokenizer.json')).token_to_id
    tables, old = after.embedding_tables(), before.embedding_tables()
    for one, other in zip(map(id_of(FIXTURES / source), olds), map(id_of(at / name), news)):
      assert (tables.input[other] == old.input[one]).all()
      assert (tables.output[other] == old.output[one]).all()
    counts = json.loads((at / f'{name}/report.json').read_text())['counts']
    assert sum(counts.values()) == len(tables.input)
    assert counts['exact'] >= 256
    assert np.isfinite(after.token_loss([TEXT[:50]])[0].nats).all()
  # The file is the one that was given, with the space that it puts before a text.
  assert load(at / 'to_spaces').tokenizer.family == 'foreign'


def test_expansion_keeps_all_old_ids_and_adds_the_new_ones(done):
  at, _, mine = done
  for name, before in (('expanded', mine), ('hf_expanded', load(FIXTURES / 'qwen2'))):
    after = load(at / name)
    size = before.tokenizer.vocab_size
    old, new = before.tokenizer.pieces, after.tokenizer.pieces
    assert new[:size] == old
    assert set(new) == set(old) | set(registry.load(at / 'ours').pieces)
    tables = after.embedding_tables()
    assert (tables.input[:size] == before.embedding_tables().input[:size]).all()
    ids = after.tokenizer.encode(TEXT)
    assert after.tokenizer.decode(ids) == TEXT
    assert len(ids) <= len(before.tokenizer.encode(TEXT))
    assert (ids >= size).any()


def test_trimming_changes_nothing_but_the_size(done):
  at, said, mine = done
  for name, before in (('trimmed', mine), ('hf_trimmed', load(at / 'hf'))):
    after = load(at / name)
    text = TEXT[:200]
    ids, old_ids = after.tokenizer.encode(text), before.tokenizer.encode(text)
    assert after.tokenizer.decode(ids) == text
    pieces = [after.tokenizer.pieces[i] for i in ids]
    assert pieces == [before.tokenizer.pieces[i] for i in old_ids]
    kept = {piece: i for i, piece in enumerate(before.tokenizer.pieces)}
    place = np.array([kept[piece] for piece in after.tokenizer.pieces])
    assert len(place) < before.tokenizer.vocab_size
    tables, old = after.embedding_tables(), before.embedding_tables()
    assert all((one == other[place]).all() for one, other in zip(tables[:2], old[:2]))
    found = after.logits([after.bos, *ids[:20]])
    expected = before.logits([before.bos, *old_ids[:20]])[:, place]
    assert (found == expected).all()  # as both numbers of rows are multiples of 64
    assert after.tokenizer.decode(after.tokenizer.encode(bytes(range(256)))) == bytes(range(256))
    report = json.loads((at / f'{name}/report.json').read_text())
    row = tables.input.dtype.itemsize * tables.input.shape[1]
    tied = 2 - before.module.embedding.tied
    assert report['bytes_saved'] == (len(old.input) - len(place)) * row * tied
    assert f'{len(place):,} of' in said[name]


def test_tokenizers_that_write_spaces_as_characters_are_trimmed_and_expanded(done):
  at, _, _ = done
  text = TEXT[:200].decode()
  before, after = load(at / 'larger_spaces'), load(at / 'spaces_trimmed')
  file = lambda name: library.Tokenizer.from_file(str(at / name / 'tokenizer.json'))
  for start in ('', ' ', text[:3]):  # the file puts a space before each
    one, other = (file(name).encode(start + text) for name in ('larger_spaces', 'spaces_trimmed'))
    if not start:
      assert other.tokens == one.tokens
      assert (after.tokenizer.encode(text.encode()) == other.ids).all()
    assert file('spaces_trimmed').decode(other.ids) == start + text
  old, new = file('larger_spaces').get_vocab(), file('spaces_trimmed').get_vocab()
  place = np.array([old[token] for token in sorted(new, key=new.get)])
  assert len(place) < len(old) == 448
  assert len(place) % 64 == 0
  ids, old_ids = (model.tokenizer.encode(text.encode()) for model in (after, before))
  found = after.logits([after.bos, *ids[:20]])
  assert (found == before.logits([before.bos, *old_ids[:20]])[:, place]).all()
  assert file('spaces_trimmed').decode(file('spaces_trimmed').encode('é 漢').ids) == 'é 漢'
  before, after = load(FIXTURES / 'llama'), load(at / 'spaces_expanded')
  old, new = file(FIXTURES / 'llama').get_vocab(), file('spaces_expanded').get_vocab()
  assert all(new[token] == i for token, i in old.items())
  assert set(new) == set(old) | set(file('larger_spaces').get_vocab())
  rows = after.embedding_tables().input
  assert (rows[: len(old)] == before.embedding_tables().input[: len(old)]).all()
  ids = after.tokenizer.encode(TEXT)
  assert after.tokenizer.decode(ids) == TEXT
  assert len(ids) < len(before.tokenizer.encode(TEXT))


def test_trimming_gives_ids_of_a_post_processor_their_new_numbers():
  made = library.Tokenizer.from_str(registry.train('bpe', [TEXT], 300).to_json())
  made.add_special_tokens(['<s>'])
  made.post_processor = library.processors.TemplateProcessing(
    single='<s> $A', special_tokens=[('<s>', 300)]
  )
  content = made.to_str().encode()
  smaller, kept = vocabularies.trim(ByteLevel(content), [TEXT[:100]])
  ids = library.Tokenizer.from_str(smaller.content.decode()).encode(TEXT[:100].decode()).ids
  assert ids[0] == smaller.vocab_size - 1 == list(kept).index(300)
  assert ids[1:] == smaller.encode(TEXT[:100]).tolist()


def test_bad_input_is_one_sentence_and_nothing_is_written(done):
  at, said, _ = done
  for name, message in {
    'lossy': 'the new tokenizer must be lossless',
    'old_lossy': 'the old tokenizer must be lossless',
    'no_model': 'none is not a trained model',
    'no_tokenizer': 'cannot read the tokenizer file',
    'no_file': 'no file matches',
    'empty': 'empty.txt has only empty files',
    'no_vectors': 'none has no vectors',
    'expanded_donor': 'which has no rows of old tokens',
    'trim_text': 'give text by --text',
    'trim_expand': '--expand needs --tokenizer',
    'distilled_best': "no method 'best'",
    'mixed_expanded': 'one of the two tokenizers is byte-level',
    'no_text': 'give text by --text',
    'no_donor': 'needs a donor',
    'donor': 'the donor has another tokenizer',
    'bad_vectors': r'its arrays must be [448, d] and [446, d]; got [[3, 2], [4, 2]]',
    'others': 'it must have a word of the vocabulary',
    'both': 'either --tokenizer=FILE or --trim',
    'wide': 'k from 1 to 16',
    'method': "no method 'best'",
    'taken': 'there is something at',
  }.items():
    assert said[name].startswith('refused: '), said[name]
    assert message in said[name]
    assert said[name].count('\n') == 1
    assert name == 'taken' or not (at / name).exists()
  assert not (at / 'dry').exists()
  assert sum(json.loads(said['dry'])['counts'].values()) == 446
