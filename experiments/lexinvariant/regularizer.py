# SPDX-License-Identifier: Apache-2.0
"""Lexinvariance as a regulariser (section 3.6): identities are partly hidden during training.

The paper scores BIG-bench, which is out of reach here. Instead, small models learn text and
in-context tasks together. Text shows the cost of hiding identities; tasks over unseen symbols, or
over symbols with hidden identities, show the gain.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import grain
import numpy as np
from ml_collections import ConfigDict

from experiments import fit
from experiments.lexinvariant import decoders, text_models
from experiments.recipe import Pictures, Run, Table, TrainSpecs
from lib import stats
from lib.data import epochs, excerpts, folded, own_files, pipeline, sources
from lib.errors import InputError
from lib.evals.sequences import generator, token_nats
from lib.language_model import TrainedModel
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, Rows, name, select, series
from lib.tasks import look_up
from lib.tasks.look_up import Example, ExampleDocuments, Symbols
from lib.tokenizers.characters import Characters

HELD_OUT = b'0123456789'  # symbols of no training document
TOKENIZER = Characters(text_models.LETTERS + look_up.FORMAT + HELD_OUT)
TEXT = 'letters'  # the vocabulary that text is folded into
TRAIN, TEST = 1 << 20, 3 << 20  # seeds of examples; sizes were chosen on others
SYMBOLS = {  # kinds of symbols of a task
  'known': 'letters, as in training',
  'held_out': 'digits, which are in no training document',
  'concealed': 'letters, the identity of every symbol hidden (p = 1)',
}
PAIRED = 'paired by seed and example'
NORM = 'mean length of a trained row over √width; a random Gaussian row has 1'


class Arm(NamedTuple):
  """How identities are hidden in training.

  Attributes:
    embedding: permuted (B_p; the standard model at p = 0), mixed, interchangeable or lexinvariant.
    p: hidden-identity probability.
    per: of 'permuted', whether types or occurrences are chosen.
  """

  embedding: str
  p: float = 0.0
  per: str = 'type'

  @property
  def where(self) -> dict[str, object]:
    """Coordinates of the arm in the tables."""
    size = {'lexinvariant': 1, 'permuted': 3}.get(self.embedding, 2)
    return dict([*self._asdict().items()][:size])


STANDARD, LEXINVARIANT = Arm('permuted'), Arm('lexinvariant')


def check(config: ConfigDict) -> None:
  """Raises InputError for missing text, or models or tasks that cannot be made."""
  options = config.regularizer
  decoders.check(options, 'regularizer', TOKENIZER.vocab_size)
  for arm in arms(config):
    if arm.embedding not in (*decoders.PARTIAL, 'lexinvariant') or not 0 <= arm.p <= 1:
      raise InputError(
        f'regularizer.arms: {tuple(arm)} is not (embedding, p, per) with an embedding of '
        f'{", ".join(decoders.PARTIAL)}, lexinvariant and p in 0…1.'
      )
  examples(options, Symbols(HELD_OUT))  # too few symbols for the task are named here
  longest = max(len(ExampleDocuments(task, 1, 0)[0]) for task in _training_tasks(config))
  if longest > options.length:
    raise InputError(
      f'regularizer.length {options.length} is too short for a task of {longest} symbols.'
    )
  for split in own_files.SPLITS:
    sources.open_source(source_of(config), split)
  epochs.check('regularizer.source', source_of(config), _text_bytes(config), config.scale)


def source_of(config: ConfigDict) -> str:
  """The source of the text; the user's `data.source` replaces it."""
  return config.data.source or config.regularizer.source


def _text_bytes(config: ConfigDict) -> int:
  """Bytes of text that training reads: a quarter of the rows."""
  options = config.regularizer
  return options.steps * options.batch_size * options.length // 4


def arms(config: ConfigDict) -> list[Arm]:
  """Every arm of the table."""
  return [Arm(*arm) for arm in config.regularizer.arms]


def measure(config: ConfigDict, run: Run) -> Rows:
  """Trains every arm, and scores text, tasks, and tasks over symbols without a known name."""
  rows, options = Rows('regularizer'), config.regularizer
  nats: dict[Arm, np.ndarray] = {}
  hits: dict[Arm, dict[str, np.ndarray]] = {}
  questions = {symbols: asked(config, symbols) for symbols in SYMBOLS}
  for arm in arms(config):
    trained = train(config, run, arm)
    fit.add_rate(rows, arm.where, options, trained[0].rate)
    nats[arm], hits[arm] = _text_nats(config, trained), {}
    for symbols, tasks in questions.items():
      for task, these in tasks.items():
        column = f'{task}_{{}}_{symbols}'
        hits[arm][column] = found = answers(config, trained, symbols, these)
        chance = max(look_up.guessing(these).values(), key=lambda one: one.value)
        note = f'of {len(these)} answers over {SYMBOLS[symbols]}'
        add_accuracies(rows, arm.where, column, found, chance, note)
    curves = [one.curve('validation/row_norm') for one in trained]
    for seed, curve in zip(fit.seeds(config, options), curves):
      for step, value in curve.items():
        rows.add(arm.where | {'seed': seed}, f'row_norm_at_step_{step}', value, note=NORM)
    if all(curves):
      ends = [[*curve.values()][-1] for curve in curves]
      rows.add(arm.where, 'row_norm_at_end', stats.mean(ends), note=NORM)
  for arm, columns in hits.items():
    other = hits.get(Arm('permuted', arm.p))
    for column, found in columns.items():
      if other and arm.embedding in ('mixed', 'interchangeable'):
        above = stats.paired_shares(found, other[column])
        column = column.format('accuracy_above_permuted')
        rows.add(arm.where, column, above, 'fraction', PAIRED)
  note = f'stretches of {options.length} symbols, no name hidden'
  for arm, one in nats.items():
    rows.add(arm.where, 'text_nats_per_symbol', stats.crossed(one), 'nats', note)
  for place, reference in (('standard', STANDARD), ('lexinvariant', LEXINVARIANT)):
    if reference in nats and len(nats) > 1:
      for arm, above in stats.arms(nats, reference, 'seeds×documents').items():
        rows.add(arm.where, f'text_nats_above_{place}', above, 'nats', note)
  return rows


def train_specs(config: ConfigDict) -> TrainSpecs:
  """The arms; all are of about one size."""
  train_spec = functools.partial(decoders.train_spec, config, config.regularizer)
  return {
    f'regularizer/{name(**arm.where)}': functools.partial(
      train_spec, arm.embedding, TOKENIZER.vocab_size, arm.per
    )
    for arm in arms(config)
  }


def train(config: ConfigDict, run: Run, arm: Arm) -> list[fit.Fitted]:
  """The seeds of an arm, trained now or by another table of this run."""
  options = config.regularizer
  held = _stretches(config, 'validation').ids

  def score(model: TrainedModel) -> dict[str, float]:
    found = {'nats_per_symbol': float(token_nats(model, held).mean())}
    embedding = model.variables['params']['embedding']
    while 'inner' in embedding:
      embedding = embedding['inner']
    if (table := embedding.get('table')) is not None:  # of the letters, which are in training text
      norms = np.linalg.norm(np.asarray(table)[: len(text_models.LETTERS)], axis=1)
      found['row_norm'] = float(norms.mean() / table.shape[1] ** 0.5)
    return found

  run_name, of_seed = f'regularizer/{name(**arm.where)}', functools.partial(batches, config, arm)
  how = arm.embedding, TOKENIZER, of_seed, score, 'nats_per_symbol', arm.per
  return decoders.train(config, run, options, run_name, *how, text=source_of(config))


def batches(config: ConfigDict, arm: Arm, seed: int) -> grain.IterDataset:
  """Training batches, one document per row: a quarter text, a half LookUp, a quarter Permutation.

  Each batch has the hidden-identity probability.
  """
  options = config.regularizer
  count = -(-options.steps * options.batch_size // 4)  # examples of each turn: none is repeated
  made = [
    ExampleDocuments(task, count, TRAIN + 3 * seed + n)
    for n, task in enumerate(_training_tasks(config))
  ]
  plain = pipeline.batches(
    sources.InTurn(_texts(config, seed), *made),
    TOKENIZER,
    batch_size=options.batch_size,
    length=options.length,
    seed=seed,
    pack=False,
    lanes=options.lanes,
  )
  if arm.embedding == 'lexinvariant':
    return plain
  return plain.map(
    lambda batch: batch | {'hidden_probability': np.full(len(batch['inputs']), arm.p, np.float32)}
  )


def _training_tasks(config: ConfigDict) -> list[look_up.Task]:
  """The tasks of training documents, in turn."""
  options, symbols = config.regularizer, Symbols(text_models.LETTERS)
  lookup = look_up.LookUp(symbols, options.pairs, options.questions)
  return [lookup, lookup, look_up.Permutation(symbols, options.demonstrations)]


def _documents(config: ConfigDict, split: str) -> sources.Source:
  return folded.open_folded(source_of(config), text_models.ALPHABETS[TEXT]).documents[split]


def _texts(config: ConfigDict, seed: int) -> list[bytes]:
  """Training text in stretches of a row's length, folded into letters and white space."""
  length, source = config.regularizer.length, _documents(config, 'train')
  whole = b'\n'.join(sources.sample(source, _text_bytes(config) + length, seed))
  return [whole[at : at + length] for at in range(0, len(whole) - length + 1, length)]


def _stretches(config: ConfigDict, split: str) -> excerpts.Excerpts:
  """Held-out text, sampled from the whole split."""
  options = config.regularizer
  return excerpts.take(
    _documents(config, split),
    length=options.length,
    count=options.test_sequences,
    most=text_models.of_one_document(options.test_sequences),
    prepare=TOKENIZER.encode,
    name=f'{source_of(config)} ({split})',
  )


def examples(options: ConfigDict, symbols: Symbols) -> dict[str, list[Example]]:
  """Questions of each task, from seeds that no training example has."""
  tasks: dict[str, look_up.Task] = {
    'lookup': look_up.LookUp(symbols, options.pairs),
    'permutation': look_up.Permutation(symbols, options.demonstrations),
  }
  return {task: look_up.examples(law, options.examples, TEST) for task, law in tasks.items()}


def asked(config: ConfigDict, symbols: str) -> dict[str, list[Example]]:
  """The questions of each task over symbols known, held out or concealed."""
  alphabet = HELD_OUT if symbols == 'held_out' else text_models.LETTERS
  return examples(config.regularizer, Symbols(alphabet))


def answers(
  config: ConfigDict, trained: Sequence[fit.Fitted], symbols: str, these: Sequence[Example]
) -> np.ndarray:
  """Shares [S, N] of symbols that models answer correctly, over symbols of a kind of SYMBOLS."""
  hidden, length = np.float32(symbols == 'concealed'), config.regularizer.length
  writers = [generator(one.model, length=length, hidden_probability=hidden) for one in trained]
  return look_up.right_shares(writers, these, TOKENIZER)


def _text_nats(config: ConfigDict, trained: Sequence[fit.Fitted]) -> np.ndarray:
  """[S, D] whose mean is the nats per symbol of held-out text, no identity hidden."""
  held = _stretches(config, 'test')
  nats = [token_nats(one.model, held.ids, seed).sum(axis=1) for seed, one in enumerate(trained)]
  sizes = stats.by_group(np.full(len(held), held.ids.shape[1]), held.documents)
  return stats.contributions(stats.by_group(nats, held.documents), sizes)


def add_accuracies(
  rows: Rows,
  where: Mapping[str, object],
  column: str,
  hits: np.ndarray,
  chance: stats.Estimate,
  note: str,
) -> None:
  """Accuracy of several models on the same examples, raw and corrected for guessing.

  `column` has {} in the place of the quantity's name; `hits` are [S, N].
  """
  right = stats.shares(hits)
  rows.add(where, column.format('accuracy'), right, 'fraction', note)
  note = (
    f'(accuracy − {chance.value:.3f}) / (1 − {chance.value:.3f}), the best guess’s accuracy taken '
    'out; 0 at least'
  )
  above = look_up.above_chance(right, chance)
  rows.add(where, column.format('accuracy_above_chance'), above, 'fraction', note)


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Gain and cost of B_p by p, and the length of trained rows."""
  mine = [row for row in rows if row.table == 'regularizer' and row.measured is not None]
  by_p: dict[str, plots.Points] = {}
  for column in dict.fromkeys(row.column for row in mine):
    found = select(rows, 'regularizer', column, embedding='permuted', per='type')
    by_p[column] = [(float(row.where['p']), row) for row in found if 'seed' not in row.where]
  accuracy = {
    column.replace('_accuracy_', ', ').replace('_', ' ') + ' symbols': curve
    for column, curve in by_p.items()
    if '_accuracy_' in column and '_above_' not in column
  }
  norms = {}
  for arm in arms(config):
    where = arm.where | {'seed': config.seed}
    if curve := series(rows, 'regularizer', r'row_norm_at_step_(\d+)', where):
      said = [f'{key} = {value}' for key, value in arm.where.items() if key != 'embedding']
      norms[', '.join([str(arm.where['embedding']), *said])] = curve
  text_nats = {'permuted names (B_p)': by_p['text_nats_per_symbol']}
  x_label, y_label = 'share p of hidden names', 'norm over √width'
  panels = [
    plots.row_curves('Tasks by how many names are hidden', x_label, 'accuracy', accuracy),
    plots.row_curves('Text under its own names', x_label, 'nats per symbol', text_nats),
    plots.row_curves(
      'Length of trained rows', 'training step', y_label, norms, levels={'random rows': 1.0}
    ),
  ]
  caption = (
    'What hiding names in a share p of the places gives on two tasks, what it costs on text, and '
    'how long trained rows grow next to random ones. Bars: one standard error.'
  )
  return {'regularizer.png': Picture(caption, panels)}


TABLE = Table(
  'regularizer',
  measure,
  'Identities partly hidden while a model learns text and tasks: the cost on text, and the gain on '
  'tasks whose symbols have no known identity.',
  (
    'text_nats_per_symbol',
    'learning_rate',
    'lookup_accuracy_above_chance_known',
    'lookup_accuracy_above_chance_held_out',
    'permutation_accuracy_above_chance_known',
    'permutation_accuracy_above_chance_held_out',
    'permutation_accuracy_above_chance_concealed',
    'lookup_accuracy_above_permuted_held_out',
  ),
  check=check,
  pictures=pictures,
  train_specs=train_specs,
  sources=lambda config: (source_of(config),),
  descriptions=lambda config: folded.describe(source_of(config), text_models.ALPHABETS[TEXT], TEXT),
)
