# SPDX-License-Identifier: Apache-2.0
"""Multiple-choice questions: one template, and readers of the published file layouts.

The template is that of arXiv 2507.04886 (its released evaluation): options separated by
spaces for MMLU, one per line for ARC and CommonsenseQA.

    Question: Which planet is the largest?
    Options: A) Mars B) Venus C) Jupiter D) Earth
    Answer:
"""

import csv
import io
import json
import os
import pathlib
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lib.data import paths, sources
from lib.errors import InputError

LETTERS = string.ascii_uppercase
LAYOUTS = {'inline': ' ', 'lines': '\n'}  # separator of options
JSON_SUFFIXES = ('.json', '.jsonl', '.ndjson')
SUFFIXES = ('.csv', *JSON_SUFFIXES)
QUESTION, ANSWER = ('question', 'prompt', 'question_stem'), ('answer', 'answerkey', 'target')
SUBJECT_ENDINGS = ('_test', '_val', '_dev')  # of MMLU's files, one per subject


class Question(NamedTuple):
  """A question and its options.

  Attributes:
    text: the question.
    options: 2 to 26 answers to choose from.
    answer: index of the right one.
    subject: topic; in MMLU the file's name.
  """

  text: str
  options: tuple[str, ...]
  answer: int
  subject: str = ''


def prompt(question: Question, layout: str = 'inline') -> bytes:
  """The question in the template, up to the answer's letter."""
  if layout not in LAYOUTS:
    raise InputError(f'layout {layout!r} is not one of {", ".join(LAYOUTS)}.')
  options = LAYOUTS[layout].join(
    f'{letter}) {option}' for letter, option in zip(LETTERS, question.options)
  )
  return f'Question: {question.text}\nOptions: {options}\nAnswer:'.encode()


def read_questions(
  spec: str, split: str = 'test', data_dir: str | os.PathLike | None = None
) -> list[Question]:
  """Questions of the user's own files, or of a prepared TFDS set.

  Args:
    spec: a file, folder or glob of CSV (MMLU: question, options, answer's letter, with or without
      a header), JSON or JSON Lines (CommonsenseQA, ARC, OpenBookQA, MMLU), or `tfds:NAME[/CONFIG]`
      of a set with their fields, such as `tfds:ai2_arc/ARC-Challenge`. Other files of
      a folder (a README) are skipped.
    split: of a TFDS set; files are read whole.
    data_dir: of TFDS sets; their default folder where None.

  Raises:
    InputError: a line that is not a question; the sentence names the file, the line and the reason.
  """
  if spec.startswith('tfds:'):
    name = spec.removeprefix('tfds:')
    records = sources.open_records(sources.open_prepared(name, data_dir), split)
    return [
      _from_tfds(sources.read_record(records, index), f'record {index} of {spec} ({split})')
      for index in range(len(records))
    ]
  found: list[Question] = []
  for path in _files(spec):
    read = _read_json if path.lower().endswith(JSON_SUFFIXES) else _read_csv
    questions = list(read(path))
    if not questions:
      raise InputError(f'{path} contains no question; give a CSV or JSON file with questions.')
    found += questions
  return found


def _files(spec: str) -> list[str]:
  """The files of questions that a path, a folder or a glob names."""
  found = paths.find_files(spec)
  if os.path.isdir(os.path.expanduser(spec)):
    found = [path for path in found if path.lower().endswith(SUFFIXES)]
    if not found:
      raise InputError(f'the folder {spec} has no file of questions; give {", ".join(SUFFIXES)}.')
  return found


def _contents(path: str) -> str:
  try:
    return pathlib.Path(path).read_text('utf-8-sig')
  except UnicodeDecodeError as error:
    raise InputError(f'{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.') from error
  except OSError as error:
    raise InputError(f'cannot read {path} ({error.strerror}); give a file you can read.') from error


def _read_csv(path: str) -> Iterator[Question]:
  stem = pathlib.Path(path).stem
  ending = next((end for end in SUBJECT_ENDINGS if stem.endswith(end)), '')
  rows = list(_rows(path))
  header = _header(rows[0][1], rows[0][0]) if rows else {}
  counted = not header and _is_counted([row for _, row in rows])
  for place, row in rows[bool(header) :]:
    cells = row[1:] if counted else row
    yield _from_cells(cells, header, place)._replace(subject=stem.removesuffix(ending))


def _rows(path: str) -> Iterator[tuple[str, list[str]]]:
  """(place, row) of each row that is not blank."""
  lines = csv.reader(io.StringIO(_contents(path), newline=''), strict=True)
  while True:
    place = f'{path}, line {lines.line_num + 1}'
    try:
      row = next(lines, None)
    except csv.Error as error:
      raise InputError(f'{place}: this is not CSV ({error}); quote fields as "…".') from error
    if row is None:
      return
    if any(cell.strip() for cell in row):
      yield place, row


def _is_counted(rows: Sequence[Sequence[str]]) -> bool:
  """Whether the first column counts the rows from 0 or 1, before a question and two options."""
  numbers = [row[0].strip() for row in rows]
  from_ = lambda start: [str(start + i) for i in range(len(rows))]
  return numbers in (from_(0), from_(1)) and all(len(row) >= 5 for row in rows)


def _header(row: Sequence[str], place: str) -> dict[str, Any]:
  """Columns of the question, the options and the answer; empty if the first row is no header."""
  names = [cell.strip().lower() for cell in row]
  question = [i for i, name in enumerate(names) if name in QUESTION]
  answer = [i for i, name in enumerate(names) if name in ANSWER]
  if not question or not answer:
    return {}
  option = lambda name: name.removeprefix('option').removeprefix('choice').strip('_ ')
  options = {option(name): i for i, name in enumerate(names) if len(option(name)) == 1}
  letters = [letter for letter in LETTERS.lower() if letter in options]
  if len(letters) < 2 or letters != list(LETTERS.lower()[: len(letters)]):
    raise InputError(
      f'{place}: the header {", ".join(row)} has no options; call their columns A, B, C, …'
    )
  return {
    'question': question[0], 'options': [options[letter] for letter in letters],
    'answer': answer[0], 'width': len(row),
  }  # fmt: skip


def _from_cells(row: Sequence[str], header: Mapping[str, Any], place: str) -> Question:
  if header:
    if len(row) != header['width']:
      raise InputError(f'{place}: {len(row)} fields, but the header has {header["width"]}.')
    cells = [row[header['question']], *(row[i] for i in header['options']), row[header['answer']]]
  else:
    cells = list(row)
  text, *options, answer = cells if len(cells) > 2 else (*cells, '', '')[:3]
  while header and len(options) > 2 and not options[-1].strip():
    options.pop()  # a question with fewer options than others
  return _question(text, options, answer, place)


def _read_json(path: str) -> Iterator[Question]:
  """One object per line, or one array of objects."""
  contents = _contents(path)
  if contents.lstrip().startswith('['):
    for index, record in enumerate(_parsed(contents, path)):
      yield _from_record(record, f'{path}, item {index}')
    return
  for number, line in enumerate(contents.split('\n'), start=1):
    if line.strip():
      place = f'{path}, line {number}'
      yield _from_record(_parsed(line, place), place)


def _parsed(contents: str, place: str) -> Any:
  try:
    return json.loads(contents)
  except (ValueError, RecursionError) as error:  # also of numbers too long, brackets too deep
    raise InputError(f'{place}: this is not JSON ({error}).') from error


def _from_tfds(record: Any, place: str) -> Question:
  try:
    return _from_record(_text(record), place)
  except UnicodeDecodeError as error:
    raise InputError(f'{place}: the text is not UTF-8 (byte {error.start}).') from error


def _text(value: Any) -> Any:
  """A TFDS record in the types of JSON."""
  if isinstance(value, Mapping):
    return {key: _text(part) for key, part in value.items()}
  if isinstance(value, bytes):
    return value.decode()
  if hasattr(value, 'tolist'):
    return _text(value.tolist())
  return [_text(part) for part in value] if isinstance(value, list | tuple) else value


def _from_record(record: Any, place: str) -> Question:
  """A question in one of the layouts of JSON: see `read_questions`."""
  if not isinstance(record, Mapping):
    raise InputError(
      f'{place}: {_short(record)} is not an object with question, choices and answer.'
    )
  fields = {str(key).lower(): value for key, value in record.items()}
  text = next((fields[name] for name in QUESTION if name in fields), None)
  choices = fields.get('choices', fields.get('options'))
  if isinstance(text, Mapping):  # CommonsenseQA and OpenBookQA as their authors publish them
    inner = text
    text = inner.get('stem')
    named = [letter for letter in LETTERS if f'choice_{letter}' in inner]
    by_name = {'label': named, 'text': [inner[f'choice_{letter}'] for letter in named]}
    choices = inner.get('choices', by_name if named else choices)
  labels, options = _choices(choices)
  answer = next((fields[name] for name in ANSWER if name in fields), None)
  if any(label is not None for label in labels):
    answer = _by_label(answer, labels, options, place)
  question = _question(text, options, answer, place)
  return question._replace(subject=str(fields.get('subject', '')))


def _by_label(answer: Any, labels: list[Any], options: list[Any], place: str) -> int:
  """The index of the option with the answer's label; type, case and spaces do not matter."""
  known = [_label(label) for label in labels]
  if None in known or len(set(known)) < len(known) or len(known) != len(options):
    raise InputError(
      f'{place}: {_short(labels)} are not labels of {len(options)} options; '
      'give each option a different label.'
    )
  if _label(answer) not in known:
    raise InputError(f'{place}: {_short(answer)} is not a label; give one of {_short(labels)}.')
  return known.index(_label(answer))


def _label(value: Any) -> str | None:
  """A label as text, stripped and in one case; None if it is not a label."""
  if isinstance(value, bool) or not isinstance(value, int | str):
    return None
  return str(value).strip().casefold() or None


def _choices(choices: Any) -> tuple[list[Any], list[Any]]:
  """(labels, options) of a list of texts, of labelled texts, or of two lists."""
  if isinstance(choices, Mapping):
    labels, options = choices.get('label', []), choices.get('text', [])
    return (labels, options) if isinstance(labels, list) and isinstance(options, list) else ([], [])
  if not isinstance(choices, list):
    return [], []
  if all(isinstance(choice, Mapping) for choice in choices):
    return [c.get('label') for c in choices], [c.get('text') for c in choices]
  return [], choices


def _question(text: Any, options: Sequence[Any], answer: Any, place: str) -> Question:
  """A checked question; the answer is an index, a letter or the text of one option."""
  if not isinstance(text, str) or not text.strip():
    raise InputError(f'{place}: there is no question; give its text.')
  if not 2 <= len(options) <= len(LETTERS):
    raise InputError(f'{place}: {len(options)} options; give 2 to {len(LETTERS)}.')
  blank = [o for o in options if not isinstance(o, str) or not o.strip()]
  if blank:
    raise InputError(f'{place}: {_short(blank[0])} is not an option; give each a text.')
  if not _encodable(text + ''.join(options)):
    raise InputError(f'{place}: the text contains half a surrogate pair; write whole characters.')
  tidy = tuple(option.strip() for option in options)
  last = LETTERS[len(tidy) - 1]
  index = answer
  if isinstance(answer, str):
    letter, known = answer.strip().upper(), LETTERS[: len(tidy)]
    if len(letter) == 1 and letter in known:
      index = known.index(letter)
    elif tidy.count(answer.strip()) == 1:
      index = tidy.index(answer.strip())
  if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(tidy):
    raise InputError(
      f'{place}: {_short(answer)} is not an answer; give a letter from A to {last}, in JSON also '
      f'an index from 0 to {len(tidy) - 1}.'
    )
  return Question(text.strip(), tidy, index)


def _encodable(text: str) -> bool:
  return not any(0xD800 <= ord(character) < 0xE000 for character in text)


def _short(value: Any) -> str:
  shown = repr(value)
  return shown if len(shown) <= 60 else shown[:57] + '...'
