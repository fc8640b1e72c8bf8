# SPDX-License-Identifier: Apache-2.0
"""Questions from files and TFDS sets; what is not a question is named with its file and line."""

import json
import types

import pytest
import tensorflow_datasets as tfds

from lib.data import sources
from lib.errors import InputError
from lib.tasks.questions import Question, prompt, read_questions

PLANET = Question('Which planet is the largest?', ('Mars', 'Venus', 'Jupiter', 'Earth'), 2)
RED = Question('Say "red", or:\nblue?', ('a, b', 'red', 'blue', 'c'), 1)


def write(path, text):
  path.write_text(text, 'utf-8')
  return str(path)


def test_the_template_is_the_published_one():
  assert prompt(PLANET) == (
    b'Question: Which planet is the largest?\n'
    b'Options: A) Mars B) Venus C) Jupiter D) Earth\nAnswer:'
  )
  assert prompt(PLANET._replace(options=('x', 'y')), 'lines').endswith(b'A) x\nB) y\nAnswer:')


@pytest.mark.parametrize(
  'text',
  [
    'Which planet is the largest?,Mars,Venus,Jupiter,Earth,C\n'
    '"Say ""red"", or:\nblue?","a, b",red,blue,c,B\n',
    'question,A,B,C,D,answer\nWhich planet is the largest?,Mars,Venus,Jupiter,Earth,C\n\n'
    '"Say ""red"", or:\nblue?","a, b",red,blue,c,b\n',
    'id,Answer,Option D,Option C,Option B,Option A,Question\n'
    '7,Jupiter,Earth,Jupiter,Venus,Mars,Which planet is the largest?\n'
    '8,B,c,blue,red,"a, b","Say ""red"", or:\nblue?"\n',
  ],
)
def test_csv_with_and_without_a_header(tmp_path, text):
  found = read_questions(write(tmp_path / 'planets_test.csv', text))
  assert found == [PLANET._replace(subject='planets'), RED._replace(subject='planets')]


def test_a_folder_is_read_file_by_file_with_subjects(tmp_path):
  for subject in ('history', 'art'):
    write(tmp_path / f'{subject}_test.csv', f'Is it {subject}?,yes,no,A\n')
  found = read_questions(str(tmp_path))
  assert [question.subject for question in found] == ['art', 'history']
  assert found[0].options == ('yes', 'no')


def test_of_a_folder_only_files_of_questions_are_read(tmp_path):
  write(tmp_path / 'README.md', '# Questions\n\nthree, words\n')
  with pytest.raises(InputError, match='has no file of questions'):
    read_questions(str(tmp_path))
  write(tmp_path / 'art.CSV', 'Is it art?,yes,no,A\n')
  write(tmp_path / 'more.jsonl', json.dumps(PLAIN))
  assert [question.answer for question in read_questions(str(tmp_path))] == [0, 2]
  with pytest.raises(InputError, match=r'README\.md, line 1'):
    read_questions(str(tmp_path / 'README.md'))  # named, it is read


@pytest.mark.parametrize('start', [0, 1])
def test_a_column_that_counts_the_rows_is_left_out(tmp_path, start):
  rows = [f'{start + i},Is it {i}?,yes,no,{"AB"[i % 2]}\n' for i in range(12)]
  found = read_questions(write(tmp_path / 'q.csv', ''.join(rows)))
  assert found == [Question(f'Is it {i}?', ('yes', 'no'), i % 2, 'q') for i in range(12)]
  rows[3] = '7' + rows[3]  # a column of numbers that does not count
  assert read_questions(write(tmp_path / 'q.csv', ''.join(rows)))[0].text == str(start)
  [found] = read_questions(write(tmp_path / 'q.csv', '1,2,3,B\n'))
  assert (found.text, found.options) == ('1', ('2', '3'))


@pytest.mark.parametrize(
  ('labels', 'answer', 'index'),
  [
    (['1', '2', '3', '4'], 1, 0),
    ([1, 2, 3, 4], '2', 1),
    ([0, 1, 2, 3], 3, 3),
    (['D', 'C', 'B', 'A'], 'a', 3),
    (['D', 'C', 'B', 'A'], ' A', 3),
    (['D', 'C', 'B', 'A'], 'D', 0),
    (['a', ' b', 'C ', 'd'], 'c', 2),
    ([None] * 4, 'C', 2),
    ([None] * 4, 'Jupiter', 2),
    (['1', '2', '3', '4'], 'C', 'is not a label'),
    (['1', '2', '3', '4'], 0, 'is not a label'),
    (['1', '2', '3', '4'], 'Jupiter', 'is not a label'),
    (['1', '2', '3', '4'], None, 'is not a label'),
    ([0, 1, 2, 3], True, 'is not a label'),
    (['A', 'a', 'B', 'C'], 'B', 'are not labels'),
    (['1', 1, '2', '3'], '2', 'are not labels'),
    (['A', '', 'B', 'C'], 'A', 'are not labels'),
    (['A', None, 'B', 'C'], 'A', 'are not labels'),
    (['A', 'B', 'C'], 'A', 'are not labels'),
  ],
)
def test_where_options_have_labels_nothing_else_decides(tmp_path, labels, answer, index):
  record = {'question': PLANET.text, 'answer': answer}
  record |= {'choices': {'label': labels, 'text': list(PLANET.options)}}
  path = write(tmp_path / 'q.json', json.dumps([record]))
  if isinstance(index, int):
    assert read_questions(path) == [PLANET._replace(answer=index)]
  else:
    with pytest.raises(InputError, match=f'item 0: .* {index}'):
      read_questions(path)


def test_options_that_are_named_are_not_counted(tmp_path):
  inner = {'stem': PLANET.text, 'choice_A': 'Mars', 'choice_C': 'Jupiter'}
  text = json.dumps({'answerKey': 'C', 'question': inner})
  [found] = read_questions(write(tmp_path / 'q.jsonl', text))
  assert found.options[found.answer] == 'Jupiter'


STEM = {'id': '1', 'answerKey': 'C', 'question': {'stem': PLANET.text, 'choices': [
  {'label': 'ABCD'[i], 'text': option} for i, option in enumerate(PLANET.options)]}}  # fmt: skip
COLUMNS = {'question': PLANET.text, 'answerKey': '3',
           'choices': {'label': ['1', '2', '3', '4'], 'text': list(PLANET.options)}}  # fmt: skip
OPEN_BOOK = {'answerKey': 'C', 'question': {'stem': PLANET.text} | {
  f'choice_{"ABCD"[i]}': option for i, option in enumerate(PLANET.options)}}  # fmt: skip
MMLU = {'question': PLANET.text, 'choices': list(PLANET.options), 'answer': 2, 'subject': ''}
PLAIN = {'question': PLANET.text, 'options': list(PLANET.options), 'answer': 'Jupiter'}
RECORDS = [STEM, COLUMNS, OPEN_BOOK, MMLU, PLAIN]


def test_json_in_every_layout(tmp_path):
  lines = '\n'.join(json.dumps(record) for record in RECORDS) + '\n\n'
  assert read_questions(write(tmp_path / 'q.jsonl', lines)) == [PLANET] * 5
  whole = json.dumps(RECORDS, indent=1)
  assert read_questions(write(tmp_path / 'q.json', whole)) == [PLANET] * 5
  separator = json.dumps(PLAIN | {'question': 'a\u2028b'}, ensure_ascii=False)  # ends no line
  assert read_questions(write(tmp_path / 's.jsonl', separator))[0].text == 'a\u2028b'


@pytest.mark.parametrize(
  ('name', 'text', 'where', 'message'),
  [
    ('q.csv', 'a,b,c,A\nq,x,y,C\n', 'line 2', "'C' is not an answer; give a letter from A to B"),
    ('q.csv', '"a\nb",x,y,B\nq,x,A\n', 'line 3', '1 options; give 2 to 26'),
    ('q.csv', 'a,b,,A\n', 'line 1', "'' is not an option"),
    ('q.csv', ' ,b,c,A\n', 'line 1', 'there is no question'),
    ('q.csv', 'a,b,c,A\n"q"x,y,z,A\n', 'line 2', 'this is not CSV'),
    ('q.csv', 'a,b,c,A\n"q,y,z,A\n', 'line 2', 'this is not CSV'),
    ('q.csv', 'question,A,B,answer\nq,x,y\n', 'line 2', '3 fields, but the header has 4'),
    ('q.csv', 'question,first,second,answer\n', 'line 1', 'call their columns A, B, C'),
    ('q.csv', '\n', 'q.csv', 'contains no question'),
    ('q.jsonl', json.dumps(MMLU) + '\n{"question"\n', 'line 2', 'this is not JSON'),
    ('q.jsonl', '3\n', 'line 1', '3 is not an object'),
    ('q.json', '[{"question": "q"}]', 'item 0', '0 options'),
    ('q.json', '[{"question": "q",\n}]', 'line 2', 'this is not JSON'),
    ('q.jsonl', json.dumps(MMLU | {'answer': 4}), 'line 1', 'an index from 0 to 3'),
    ('q.jsonl', json.dumps(MMLU | {'answer': True}), 'line 1', 'True is not an answer'),
    ('q.jsonl', json.dumps(MMLU | {'choices': ['x', 3]}), 'line 1', '3 is not an option'),
    ('q.jsonl', json.dumps(MMLU | {'question': None}), 'line 1', 'there is no question'),
  ],
)
def test_what_is_no_question_is_named_with_its_place(tmp_path, name, text, where, message):
  path = write(tmp_path / name, text)
  with pytest.raises(InputError) as error:
    read_questions(path)
  sentence = str(error.value)
  assert path in sentence
  assert where in sentence
  assert message in sentence
  assert '\n' not in sentence


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path):
  (tmp_path / 'q.csv').write_bytes(b'caf\xe9,x,y,A\n')
  with pytest.raises(InputError, match=r'q\.csv is not UTF-8 text \(byte 3\)'):
    read_questions(str(tmp_path / 'q.csv'))
  with pytest.raises(InputError, match='no file matches'):
    read_questions(str(tmp_path / 'none.csv'))
  with pytest.raises(InputError, match='no prepared TFDS set'):
    read_questions('tfds:ai2_arc/ARC-Nowhere', data_dir=tmp_path)


class ToyArc(tfds.core.GeneratorBasedBuilder):
  """The features of ai2_arc."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    letters = tfds.features.ClassLabel(names=list('ABCDE'))
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict({
        'id': tfds.features.Text(),
        'question': tfds.features.Text(),
        'choices': tfds.features.Sequence({'text': tfds.features.Text(), 'label': letters}),
        'answerKey': letters,
      }),
    )  # fmt: skip

  def _split_generators(self, dl_manager):
    return {'validation': self._generate_examples()}

  def _generate_examples(self):
    choices = {'text': list(PLANET.options), 'label': list('ABCD')}
    for i in range(3):
      yield i, {'id': str(i), 'question': PLANET.text, 'choices': choices, 'answerKey': 'C'}


def test_a_prepared_tfds_set_is_read_without_its_code(tmp_path):
  ToyArc(data_dir=tmp_path, file_format='array_record').download_and_prepare()
  assert read_questions('tfds:toy_arc', 'validation', tmp_path) == [PLANET] * 3
  with pytest.raises(InputError, match="has no split 'test'; it has validation"):
    read_questions('tfds:toy_arc', 'test', tmp_path)


class Damaged(list):
  """Records of a file that array_record finds to be damaged."""

  split = 'test'
  dataset_info = types.SimpleNamespace(
    splits={'test': types.SimpleNamespace(shard_lengths=[1], filepaths=['some.array_record'])}
  )

  def __getitem__(self, index):
    raise RuntimeError('DATA_LOSS: checksum; at byte 9')


@pytest.mark.parametrize(
  ('records', 'message'),
  [
    (Damaged([{}]), 'record 0 of some.array_record cannot be read'),
    (
      [{'question': b'caf\xe9'}],
      r'record 0 of tfds:some \(test\): the text is not UTF-8 \(byte 3\)',
    ),
  ],
)
def test_damaged_records_are_named(monkeypatch, records, message):
  monkeypatch.setattr(sources, 'open_prepared', lambda *_: None)
  monkeypatch.setattr(sources, 'open_records', lambda *_: records)
  with pytest.raises(InputError, match=message):
    read_questions('tfds:some')
