# SPDX-License-Identifier: Apache-2.0
"""In-context tasks asked of the models of text (section 3.5, tables 1 and 2), and the "4×" audited.

No model of text was trained on these tasks. The rows `trained=tasks` are of a pair that was (models
of table `regularizer`): that is not the paper's experiment.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.lexinvariant import models, regularizer, text
from lib.data import ciphers, in_context, sources
from lib.data.in_context import Example, ExampleDocuments, Symbols
from lib.errors import InputError
from lib.evals import in_context as scores
from lib.report import published
from lib.report.results import Row, name
from lib.stats import Estimate

LAWS = ('uniform', 'frequency')  # how symbols are drawn
SEED = 3 << 20  # of the examples
AUDIT = 'in_context_audit'


def check(config: ConfigDict) -> None:
  """Raises InputError for text, models or tasks that cannot be had."""
  text.check(config)
  regularizer.check(config)
  if config.in_context.examples < 1:
    raise InputError(f'in_context.examples must be 1 or more; got {config.in_context.examples}.')
  _tasks(config, Symbols(text.LETTERS))


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Accuracy of both embeddings on the same examples, and what one gains on the other."""
  rows = []
  for corpus in text.corpora(config):
    trained = {
      kind: [text.fit(config, run, corpus, kind, seed) for seed in text.seeds(config)]
      for kind in models.EMBEDDINGS
    }
    for law in LAWS:
      rows += _rows(config, corpus, law, trained)
  return [*rows, *_trained_on_tasks(config, run), *audit(rows)]


def _tasks(config: ConfigDict, symbols: Symbols) -> dict[str, in_context.Task]:
  options = config.in_context
  return {
    'lookup': in_context.LookUp(symbols, options.pairs),
    'permutation': in_context.Permutation(symbols, options.demonstrations),
  }


def symbols_of(corpus: text.Corpus, law: str) -> Symbols:
  """The vocabulary's symbols, all alike or as frequent as in the training text.

  Of a vocabulary of pieces, those that are read back as one token.
  """
  encode, decode = corpus.tokenizer.encode, corpus.tokenizer.decode
  pieces = [decode([i]) for i in range(corpus.vocab_size)]
  if corpus.alphabet is None:
    pieces = [piece if encode(piece).tolist() == [i] else b'' for i, piece in enumerate(pieces)]
  usable = [i for i, piece in enumerate(pieces) if piece]
  weights = None
  if law == 'frequency':
    known = encode(b''.join(sources.sample(corpus.documents('train'), 2**22)))
    weights = np.bincount(known, minlength=corpus.vocab_size)[usable]
  return Symbols([pieces[i] for i in usable], weights)


def examples(config: ConfigDict, corpus: text.Corpus, law: str) -> dict[str, list[Example]]:
  """Examples of each task over the symbols of a vocabulary."""
  count = config.in_context.examples
  found = {}
  for task, one in _tasks(config, symbols_of(corpus, law)).items():
    made = ExampleDocuments(one, count, SEED)
    found[task] = [made.example(i) for i in range(count)]
  return found


def _folded(example: Example, alphabet: bytes | None) -> Example:
  """An example like all text of the vocabulary: in letters the arrow is two spaces."""
  if alphabet is None or set(in_context.FORMAT) <= set(alphabet):
    return example
  return Example(*(ciphers.fold(part, alphabet) for part in example))


def commonness(corpus: text.Corpus) -> dict[bytes, float]:
  """How frequent each symbol of a vocabulary is in the training text."""
  symbols = symbols_of(corpus, 'frequency')
  return dict(zip(symbols.known, symbols.weights.tolist()))


def _rows(
  config: ConfigDict,
  corpus: text.Corpus,
  law: str,
  trained: Mapping[str, Sequence[models.Trained]],
) -> list[Row]:
  rows = []
  plain = examples(config, corpus, law)
  asked = {task: [_folded(e, corpus.alphabet) for e in these] for task, these in plain.items()}
  tokens = lambda part: max(
    len(corpus.tokenizer.encode(e[part])) for these in asked.values() for e in these
  )
  length = tokens(0) + tokens(1)
  for task, these in plain.items():
    row = f'{corpus.row},{name(symbols=law, task=task)}'
    note = f'{len(these)} examples of {_size(config, task)}'
    guesses, chance = _guesses(row, these, commonness(corpus))
    rows += guesses
    generate = functools.partial(
      models.generator, length=length, batch_size=_batch_size(config, corpus)
    )
    found = {
      kind: [
        scores.generated_answers(generate(one), asked[task], corpus.tokenizer) for one in several
      ]
      for kind, several in trained.items()
    }
    rows += _accuracies(row, found, chance, note)
  return rows


def _accuracies(
  row: str, found: Mapping[str, Sequence[scores.Answers]], chance: Estimate, note: str
) -> list[Row]:
  """Accuracy of both embeddings, and of one above the other on the same examples."""
  rows = []
  for kind, answers in found.items():
    rows += regularizer.accuracy_rows(
      'in_context', f'{row},embedding={kind}', '{}', answers, chance, note
    )
  rows.append(
    regularizer.above('in_context', f'{row},embedding=lexinvariant', 'accuracy_above_learned',
                      found['lexinvariant'], found['learned'])
  )  # fmt: skip
  return rows


def _batch_size(config: ConfigDict, corpus: text.Corpus) -> int:
  """Examples of a call: all, or fewer where the rows of each fill 2^31 numbers together."""
  options = config.text
  rows = corpus.vocab_size * (options.row_dim or options.dim)
  return max(1, min(config.in_context.examples, 2**31 // rows))


def _guesses(
  row: str, these: Sequence[Example], known: Mapping[bytes, float] | None = None
) -> tuple[list[Row], Estimate]:
  """What guessing gets right, a row for each way, and the best of them: the chance of the rows."""
  found = scores.guessing(these, known)
  note = 'a guess among the values shown, or the symbols of the line asked about'
  rows = [
    Row.of('in_context', f'{row},{name(predictor=way)}', 'accuracy', one, unit='fraction',
           note=note)
    for way, one in found.items()
  ]  # fmt: skip
  return rows, max(found.values(), key=lambda one: one.value)


def _size(config: ConfigDict, task: str) -> str:
  options = config.in_context
  return f'{options.pairs} pairs' if task == 'lookup' else f'{options.demonstrations} lines'


def _trained_on_tasks(config: ConfigDict, run: runner.Run) -> list[Row]:
  """The same decoder under trained and random rows, trained on text and tasks together."""
  trained = {
    kind: [regularizer.fit(config, run, arm, seed) for seed in regularizer.seeds(config)]
    for kind, arm in (('learned', regularizer.STANDARD), ('lexinvariant', regularizer.LEXINVARIANT))
  }
  rows = []
  for symbols in ('known', 'held_out'):
    note = f'not the paper’s experiment: trained on the tasks, {regularizer.SYMBOLS[symbols]}'
    for task, these in regularizer.asked(config, symbols).items():
      row = name(trained='tasks', symbols=symbols, task=task)
      guesses, chance = _guesses(row, these)
      rows += guesses
      found = {
        kind: [regularizer.answers(config, one, symbols, these) for one in several]
        for kind, several in trained.items()
      }
      rows += _accuracies(row, found, chance, note)
  return rows


def audit(rows: Sequence[Row]) -> list[Row]:
  """What "4× better on average" comes to: over the pairs of these rows, and of the paper."""
  entries = published.load('lexinvariant')['entries']
  paper = {e['row']: e['value'] for e in entries if e['table'] == 'in_context'}
  measured = {
    row.row: row.measured for row in rows if row.column == 'accuracy' and row.measured is not None
  }
  found = []
  for prefix, cells in (('', measured), ('source=paper,', paper)):
    for law in LAWS:
      for part in ('', 'vocabulary=char,', 'vocabulary=32k,'):
        standard = [row for row in cells if f'symbols={law}' in row and row.endswith('=learned')]
        standard = [row for row in standard if part in row]
        if standard:
          pairs = [(cells[r], cells[r.replace('=learned', '=lexinvariant')]) for r in standard]
          found += _statistics(f'{prefix}{part}{name(symbols=law)}', pairs)
  return found


def _statistics(row: str, pairs: Sequence[tuple[float, float]]) -> list[Row]:
  values = scores.improvement(*zip(*pairs, strict=True))
  note = f'lexinvariant over standard, {len(pairs)} pairs'
  none = '; no number where a standard accuracy is 0'
  return [
    Row(AUDIT, row, column, value if finite else None, unit='ratio',
        note=note if finite else note + none)
    for column, value in values.items()
    for finite in [bool(np.isfinite(value))]
  ]  # fmt: skip
