# SPDX-License-Identifier: Apache-2.0
"""In-context tasks for the models of text (section 3.5, tables 1 and 2), and an audit of the "4×".

No model of text was trained on these tasks. The rows `trained=tasks` are of two models that were
(from table `regularizer`), which is not the paper's experiment.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import fit
from experiments.lexinvariant import decoders, regularizer, text_models
from experiments.recipe import Pictures, Run, Table
from lib import stats
from lib.data import sources
from lib.evals.sequences import generator
from lib.report import plots, published
from lib.report.plots import EMBEDDINGS, Picture
from lib.report.results import Row, Rows, coordinates, select
from lib.tasks import look_up
from lib.tasks.look_up import Example, Symbols

LAWS = ('uniform', 'frequency')  # distributions of symbols
AUDIT = 'in_context_audit'


def check(config: ConfigDict) -> None:
  """Raises InputError for missing text, or models or tasks that cannot be made."""
  text_models.check(config)
  regularizer.check(config)
  regularizer.examples(config.in_context, Symbols(text_models.LETTERS))


def measure(config: ConfigDict, run: Run) -> list[Row]:
  """Accuracy of both embeddings on the same examples, and their difference."""
  rows = Rows('in_context')
  for corpus in text_models.corpora(config):
    trained = {kind: text_models.train(config, run, corpus, kind) for kind in decoders.EMBEDDINGS}
    for law in LAWS:
      _ask(rows, config, corpus, law, trained)
  audited = audit(rows)
  _ask_trained_on_tasks(rows, config, run)
  return [*rows, *audited]


def symbols_of(corpus: text_models.Corpus, law: str) -> Symbols:
  """The vocabulary's symbols, all alike or as frequent as in the training text."""
  documents = None
  if law == 'frequency':
    documents = sources.sample(corpus.documents('train'), 2**22)
  return look_up.symbols_of(corpus.tokenizer, documents)


def _ask(
  rows: Rows,
  config: ConfigDict,
  corpus: text_models.Corpus,
  law: str,
  trained: Mapping[str, Sequence[fit.Fitted]],
) -> None:
  """Tasks over the symbols of a corpus."""
  options, tokenizer = config.in_context, corpus.tokenizer
  frequent = symbols_of(corpus, 'frequency')
  known = dict(zip(frequent.known, frequent.weights.tolist()))
  plain = regularizer.examples(options, symbols_of(corpus, law))
  fold = lambda these: [look_up.folded(one, corpus.alphabet) for one in these]
  asked = {task: fold(these) for task, these in plain.items()}
  pairs = [list(map(tokenizer.encode, one)) for these in asked.values() for one in these]
  length = max(len(prompt) for prompt, _ in pairs) + max(len(answer) for _, answer in pairs)
  # All examples in one call, or fewer where the rows of each fill 2^31 numbers together.
  numbers = tokenizer.vocab_size * (config.text.row_dim or config.text.dim)
  size = max(1, min(options.examples, 2**31 // numbers))
  for task, these in plain.items():
    shown = f'{options.pairs} pairs' if task == 'lookup' else f'{options.demonstrations} lines'
    hits = {}
    for kind, several in trained.items():
      writers = [generator(one.model, length=length, batch_size=size) for one in several]
      hits[kind] = look_up.right_shares(writers, asked[task], tokenizer)
    where = corpus.where | {'symbols': law, 'task': task}
    _add(rows, where, these, hits, f'{len(these)} examples of {shown}', known)


def _ask_trained_on_tasks(rows: Rows, config: ConfigDict, run: Run) -> None:
  """The same decoder under trained and random rows, trained on text and tasks together."""
  trained = {
    'learned': regularizer.train(config, run, regularizer.STANDARD),
    'lexinvariant': regularizer.train(config, run, regularizer.LEXINVARIANT),
  }
  for symbols in ('known', 'held_out'):
    note = f'not the paper’s experiment: trained on the tasks, {regularizer.SYMBOLS[symbols]}'
    for task, these in regularizer.asked(config, symbols).items():
      hits = {
        kind: regularizer.answers(config, several, symbols, these)
        for kind, several in trained.items()
      }
      _add(rows, {'trained': 'tasks', 'symbols': symbols, 'task': task}, these, hits, note)


def _add(
  rows: Rows,
  where: Mapping[str, str],
  these: Sequence[Example],
  hits: Mapping[str, np.ndarray],
  note: str,
  known: Mapping[bytes, float] | None = None,
) -> None:
  """Accuracy of guessing and of both embeddings, and the difference between the embeddings.

  `hits` are shares [S, N] by embedding; `known` is how frequent each symbol is in training text.
  """
  guesses = look_up.guessing(these, known)
  for way, one in guesses.items():
    guess = 'a guess among the values shown, or the symbols of the line asked about'
    rows.add({**where, 'predictor': way}, 'accuracy', one, 'fraction', guess)
  chance = max(guesses.values(), key=lambda one: one.value)
  for kind, found in hits.items():
    regularizer.add_accuracies(rows, {**where, 'embedding': kind}, '{}', found, chance, note)
  above = stats.paired_shares(hits['lexinvariant'], hits['learned'])
  place = {**where, 'embedding': 'lexinvariant'}
  rows.add(place, 'accuracy_above_learned', above, 'fraction', regularizer.PAIRED)


def audit(rows: Sequence[Row]) -> Rows:
  """ "4× better on average", evaluated on the pairs of these rows and of the paper."""
  entries = published.load('lexinvariant')['entries']
  paper = [Row(one['table'], coordinates(one['row']), 'accuracy', one['value']) for one in entries]
  accuracy = lambda cells, where: select(cells, 'in_context', 'accuracy', **where)
  found = Rows(AUDIT)
  for source, cells in (({}, rows), ({'source': 'paper'}, paper)):
    for law in LAWS:
      for part in ({}, {'vocabulary': 'char'}, {'vocabulary': '32k'}):
        where = part | {'symbols': law}
        pairs = [
          (one.measured, other.measured)
          for one in accuracy(cells, where | {'embedding': 'learned'})
          for other in accuracy(cells, {**one.where, 'embedding': 'lexinvariant'})
        ]
        note = f'lexinvariant over standard, {len(pairs)} pairs'
        averages = look_up.improvement(*zip(*pairs, strict=True)) if pairs else {}
        for column, value in averages.items():
          none = '' if np.isfinite(value) else '; no number where a standard accuracy is 0'
          found.add(source | where, column, None if none else value, 'ratio', note + none)
  return found


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Accuracy of both embeddings next to guessing, by corpus, and of the pair that was trained."""
  panels: dict[str, dict[str, dict[str, Row]]] = {}  # title -> who answers -> task -> accuracy
  for row in select(rows, 'in_context', 'accuracy'):
    where = row.where
    who = EMBEDDINGS.get(where.get('embedding', ''))
    who = who or f'guess: {where["predictor"].replace("_", " ")}'
    task = f'{where["task"]}\n{where["symbols"].replace("_", " ")}'
    corpus = [where[key] for key in ('data', 'vocabulary') if key in where]
    title = 'Models of ' + ', '.join(corpus) if corpus else 'Models trained on the tasks'
    panels.setdefault(title, {}).setdefault(who, {})[task] = row
  drawn = []
  for title, by_who in panels.items():
    groups = [*next(iter(by_who.values()))]
    values = {who: [*one.values()] for who, one in by_who.items()}
    drawn.append(plots.row_bars(title, 'accuracy', groups, values, {}))
  caption = (
    'Accuracy in looking symbols up and in permuting them, next to guesses. Bars: one standard '
    'error over questions.'
  )
  return {'in_context.png': Picture(caption, drawn)}


TABLE = Table(
  'in_context',
  measure,
  'Answers generated in two symbolic tasks, by models of text that were not trained on them, and '
  '(trained=tasks, not in the paper) by models that did. Rows with predictor= are guessers '
  'without a model.',
  ('accuracy', 'accuracy_above_chance', 'accuracy_above_learned'),
  check=check,
  pictures=pictures,
  sources=text_models.read,
  descriptions=text_models.describe,
  also={
    AUDIT: (
      '"On average 4 times better", by five statistics of the pairs.',
      ('mean_ratio', 'geometric_mean_ratio', 'ratio_of_means'),
    )
  },
)
