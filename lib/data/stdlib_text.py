# SPDX-License-Identifier: Apache-2.0
"""The embedded corpus: text that every Python carries, as a TFDS set made without TensorFlow.

Language-reference topics, the docstrings of each module, and each module's source with the
docstrings cut out. Exact repetitions of a document are left out, and what documents of validation
and test share with documents of train is cut out of them (`lib.data.overlap`).
"""

import ast
import contextlib
import functools
import hashlib
import io
import os
import pathlib
import pydoc_data.topics
import sys
import sysconfig
import tokenize
from collections.abc import Iterator, Sequence

import tensorflow_datasets as tfds
from etils import epath

from lib.data import overlap
from lib.data.own_files import SPLITS
from lib.errors import InputError
from lib.progress import Bar

KINDS = {  # config -> kinds of document
  'all': ('topic', 'docstrings', 'source'),
  'prose': ('topic', 'docstrings'),
  'source': ('source',),
}
# Tests, other people's packages, and pydoc_data, whose source is the topics once more.
LEFT_OUT = {'test', 'tests', 'idle_test', 'site-packages', 'dist-packages', '_bundled'}
LEFT_OUT |= {'pydoc_data', '__pycache__'}
Document = dict[str, str]  # name, kind, text
LEFT_OUT_PREFIXES = ('_sysconfigdata', 'config-')  # written by the machine that built Python


class StdlibText(tfds.core.GeneratorBasedBuilder):
  """Documents (name, kind, text) of the running Python; its version is Python's version.

  The folder's name also carries the version of the rules for splits: a set that was prepared under
  older ones is not used.
  """

  name = f'stdlib_text_splits{overlap.VERSION}'
  VERSION = tfds.core.Version('{}.{}.{}'.format(*sys.version_info))
  BUILDER_CONFIGS = [  # noqa: RUF012 (the name is TFDS's)
    tfds.core.BuilderConfig(name=name, description=' and '.join(kinds))
    for name, kinds in KINDS.items()
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text
    fields = tfds.features.FeaturesDict({'name': text(), 'kind': text(), 'text': text()})
    metadata = tfds.core.MetadataDict()
    return tfds.core.DatasetInfo(builder=self, features=fields, metadata=metadata)

  def _split_generators(self, dl_manager):
    found, overlaps = splits(KINDS[self.builder_config.name])
    self.info.metadata['overlaps'] = {split: list(figures) for split, figures in overlaps.items()}
    return {split: self._generate_examples(found[split]) for split in SPLITS}

  def _generate_examples(self, found: list[Document]):
    for document in found:
      yield f'{document["kind"]}:{document["name"]}', document


def splits(
  kinds: Sequence[str],
) -> tuple[dict[str, list[Document]], dict[str, overlap.Overlap]]:
  """The documents of some kinds by split, and the overlap of validation and test with train."""
  whole, cleaned = _cleaned()
  of_kind = lambda documents: [one for one in documents if one['kind'] in kinds]
  texts = lambda documents: [one['text'].encode() for one in documents]
  train = texts(of_kind(whole['train']))
  found, overlaps = {'train': of_kind(whole['train'])}, {}
  for split in SPLITS[1:]:
    before, after = texts(of_kind(whole[split])), texts(of_kind(cleaned[split]))
    found[split] = [one for one in of_kind(cleaned[split]) if one['text']]
    overlaps[split] = overlap.Overlap(
      overlap.share(before, train),
      overlap.share(after, train),
      sum(map(len, after)) / sum(map(len, before)),
    )
  return found, overlaps


@functools.cache
def _cleaned() -> tuple[dict[str, list[Document]], dict[str, list[Document]]]:
  """All documents by split, as they are and as they are left when shared text is cut out.

  All kinds are cut together, so that a document is the same in every config.
  """
  whole: dict[str, list[Document]] = {split: [] for split in SPLITS}
  for document in documents():
    whole[split_of(document['name'])].append(document)
  texts = {split: [one['text'].encode() for one in whole[split]] for split in SPLITS}
  cuts = overlap.clean(texts['train'], texts['validation'], texts['test'])
  cleaned = {
    split: [
      one | {'text': left.decode()}
      for one, left in zip(whole[split], cut.join(texts[split]), strict=True)
    ]
    for split, cut in cuts.items()
  }
  return whole, cleaned


def split_of(name: str) -> str:
  """Split of a module or topic by a hash of its name (80/10/10), the same in every Python."""
  return SPLITS[max(0, int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 - 7)]


def prepare(config: str, data_dir: str | os.PathLike) -> tfds.core.DatasetBuilder:
  """The data set of one config ('all', 'prose', 'source'), made under `data_dir` if it is new.

  Several processes may run this at once: each writes a folder, the first to rename it
  into place wins and the others read that one.
  """
  folder = epath.Path(data_dir).expanduser()
  path = folder / StdlibText.name / config / str(StdlibText.VERSION)
  try:
    if not path.exists():
      builder = StdlibText(config=config, data_dir=folder, file_format='array_record')
      with _quiet_tfds():
        builder.download_and_prepare()
  except OSError as error:
    if not path.exists():
      raise InputError(
        f'cannot write the stdlib corpus below {folder} ({error.strerror}); '
        'name a folder you may write to as data_dir.'
      ) from error
  return tfds.builder_from_directory(path)


def documents() -> Iterator[Document]:
  """Every document of the corpus in the order of names, exact repetitions left out."""
  seen = set()
  for document in _all_documents():
    digest = hashlib.sha256(document['text'].encode()).digest()
    if document['text'].strip() and digest not in seen:
      seen.add(digest)
      yield document


def _all_documents() -> Iterator[Document]:
  for name, text in sorted(pydoc_data.topics.topics.items()):
    yield {'name': name, 'kind': 'topic', 'text': text.strip() + '\n'}
  root = pathlib.Path(sysconfig.get_path('stdlib'))
  paths = sorted(path for path in root.rglob('*.py') if not _left_out(path.relative_to(root)))
  for path in Bar(paths, desc='stdlib text, once'):
    try:
      with tokenize.open(path) as stream:
        docstrings, source = separate(stream.read())
    except SyntaxError:  # a template or an example of bad code
      continue
    name = '.'.join(path.relative_to(root).with_suffix('').parts).removesuffix('.__init__')
    yield {'name': name, 'kind': 'docstrings', 'text': docstrings}
    yield {'name': name, 'kind': 'source', 'text': source}


def _left_out(path: pathlib.PurePath) -> bool:
  return any(part in LEFT_OUT or part.startswith(LEFT_OUT_PREFIXES) for part in path.parts)


def separate(source: str) -> tuple[str, str]:
  """A module's docstrings, joined by empty lines, and its source without them."""
  documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  nodes = [
    node
    for node in ast.walk(ast.parse(source))
    if isinstance(node, documented) and ast.get_docstring(node) is not None
  ]
  nodes.sort(key=lambda node: node.body[0].lineno)
  text = '\n\n'.join(ast.get_docstring(node) or '' for node in nodes).strip()
  lines = source.encode().splitlines(keepends=True)
  for node in reversed(nodes):  # from the end, so that line numbers stay true
    _remove(node.body[0], lines)
  return text + '\n' if text else '', b''.join(lines).decode()


def _remove(statement: ast.stmt, lines: list[bytes]) -> None:
  """Cuts a statement out of `lines`, and the lines that contain nothing else."""
  first, last = statement.lineno - 1, (statement.end_lineno or statement.lineno) - 1
  rest = lines[first][: statement.col_offset] + lines[last][statement.end_col_offset :]
  lines[first : last + 1] = [rest] if rest.strip() else []


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
  """Silences TFDS's announcements and bars; our own bar says all that is wanted."""
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    tfds.enable_progress_bar()
