# SPDX-License-Identifier: Apache-2.0
"""Table `transplant`: one old model, several new tokenizers, all methods.

Models are scored before and after continued training.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import fit
from experiments.fit import Fitted
from experiments.recipe import Pictures, Run, Table, TrainSpecs
from experiments.transplant import learning, scoring
from experiments.transplant.scoring import Scores
from lib import stats
from lib.data import sources
from lib.data.sources import Source
from lib.errors import InputError
from lib.language_model import TrainedModel
from lib.report import plots
from lib.report.results import Row, Rows, name, select
from lib.tokenizers.base import Dictionary
from lib.transplant import methods, pieces, transplant, vectors
from lib.transplant.distillation import PREFIX, distil

# Methods that the others are compared with.
REFERENCES = ('random', 'mean', 'parts', 'focus', 'wechsel', 'ridge')
PAIRED = 'seeds×documents'


def measure(config: ConfigDict, run: Run) -> list[Row]:
  """Trains the old model, makes and scores its transplants, and trains some of them further."""
  options, rows, curves = config.transplant, Rows('transplant'), Rows('transplant_learning')
  old, text = scoring.old_tokenizer(config), scoring.held_out(config)
  documents, validation = scoring.old_text(config), scoring.validation_text(config)
  before = scoring.train(config, run, 'transplant/old', old, documents)
  models = [one.model for one in before]
  unchanged = scoring.score(models, text, np.zeros(old.vocab_size, bool))
  at = {'method': 'unchanged'}
  scoring.add(rows, at | {'step': 0}, unchanged, unchanged)
  further = continued(config, run, old, documents, at, models, options.long_steps)
  more = scoring.score([one.model for one in further], text, np.zeros(old.vocab_size, bool))
  scoring.add(rows, at | {'step': options.long_steps}, more, unchanged)
  for label, family, vocab_size, source in options.new_tokenizers:
    new = scoring.train_tokenizer(family, vocab_size, source, config.old.train_bytes)
    is_new = pieces.match(old, new) < 0
    watched = label == options.continued
    scratch = scoring.train_from_scratch(
      config,
      run,
      f'transplant/scratch,new={label}',
      new,
      documents,
      config.scratch.steps if watched else (),
      validation=validation if watched else None,
    )
    found, distilled = dict[tuple[str, int], Scores](), dict[str, int]()
    for steps, trained in scratch.items():
      found['scratch', steps] = scoring.score([one.model for one in trained], text, is_new)
    ends = learning.ends(scratch) if watched else []
    if watched:
      learning.add(curves, {'new': label, 'method': 'scratch'}, ends)
    makers = Makers(config, old, new, [one.model for one in scratch[config.base.steps]])
    for method in options.methods:
      made, seconds, distilled[method] = makers.make(method, models)
      found[method, 0] = scoring.score(made, text, is_new)
      where = {'new': label, 'method': method, 'step': 0}
      rows.add(where, 'method_seconds', stats.mean(seconds), 's')
      add_norms(rows, where, made, is_new)
      for steps, methods_of in continuations(options) if label == options.continued else ():
        if method in methods_of:
          at = {'new': label, 'method': method}
          watched = steps == options.long_steps
          trained = continued(
            config, run, new, documents, at, made, steps, validation=validation if watched else None
          )
          found[method, steps] = scoring.score([one.model for one in trained], text, is_new)
          if watched:
            learning.add_speed(curves, at, trained, ends)
    for (method, steps), scores in found.items():
      where = {'new': label, 'method': method, 'step': steps}
      scoring.add(rows, where, scores, unchanged)
      read = steps * config.base.batch_size * config.base.length + distilled.get(method, 0)
      rows.add(
        where, 'tokens_trained', read, 'tokens', 'of training text, read with this tokenizer'
      )
    add_differences(rows, label, {one: found[one] for one in found if one[0] != 'scratch'})
  return [*rows, *curves]


def continuations(options: ConfigDict) -> list[tuple[int, Sequence[str]]]:
  """Numbers of steps of continued training, each with the methods that are trained so."""
  return [(options.short_steps, options.short), (options.long_steps, options.long)]


class Makers:
  """Transplants of models of one old tokenizer to one new tokenizer.

  Args:
    config: of the recipe.
    old: the old tokenizer.
    new: the new one.
    donors: a model with the new tokenizer for each seed.
    given: external vectors of both tokenizers; by default made from the text.
  """

  def __init__(
    self,
    config: ConfigDict,
    old: Dictionary,
    new: Dictionary,
    donors: Sequence[TrainedModel] = (),
    given: tuple[np.ndarray, np.ndarray] | None = None,
  ):
    self.config, self.old, self.new, self.donors = config, old, new, donors
    limit = config.vectors.bytes
    self.texts = sources.sample(sources.open_source(config.data.source, 'train'), limit)
    self.vectors = given or vectors.of_text(old, new, self.texts, config.vectors.dim)

  def make(
    self, method: str, models: Sequence[TrainedModel], copy_exact: bool = True
  ) -> tuple[list[TrainedModel], list[float], int]:
    """A transplant of each model, the seconds that each took, and the tokens of distillation.

    The seconds leave out external vectors and donors.
    """
    made, seconds, tokens = [], [], 0
    for i, model in enumerate(models):
      donor = self.donors[i].embedding_tables() if self.donors else None
      begin = time.perf_counter()
      found = transplant(
        model.embedding_tables(),
        self.old,
        self.new,
        method.removeprefix(PREFIX),
        vectors_of=self.vectors,
        donor=donor,
        texts=self.texts,
        copy_exact=copy_exact,
        seed=self.config.seed + i,
      )
      one = model.with_tables(found.tables, self.new)
      if method.startswith(PREFIX):
        one, _, tokens = distil(model, one, self.texts, steps=self.config.distillation.steps)
      seconds.append(time.perf_counter() - begin)
      made.append(one)
    return made, seconds, tokens


def continued(
  config: ConfigDict,
  run: Run,
  new: Dictionary,
  documents: Source,
  where: Mapping[str, Any],
  made: Sequence[TrainedModel],
  steps: int,
  table: str = 'transplant',
  validation: Source | None = None,
  text: str | None = None,
) -> list[Fitted]:
  """The transplants after more training on documents, of the source `text` if not the config's."""
  start = {config.seed + i: model for i, model in enumerate(made)}
  changes = {
    'steps': steps, 'rates': (config.continued.rate,), 'warmup': config.continued.warmup,
    'tied': made[0].module.embedding.tied,
  }  # fmt: skip
  path = f'{table}/{name(**where, step=steps)}'
  return scoring.train(
    config, run, path, new, documents, validation=validation, start=start, text=text, **changes
  )


def add_norms(
  rows: Rows, where: Mapping[str, Any], made: Sequence[TrainedModel], is_new: np.ndarray
) -> None:
  """Adds the mean norm of new rows in the LM head, divided by that of copied rows."""
  ratios = []
  for model in made:
    lengths = np.linalg.norm(model.embedding_tables().output, axis=1)
    ratios.append(lengths[is_new].mean() / lengths[~is_new].mean())
  note = 'mean norm of the rows of new ids in the LM head, divided by that of other rows'
  rows.add(where, 'norm_ratio_new', stats.mean(ratios), '', note)


def add_differences(rows: Rows, label: str, found: Mapping[tuple[str, int], Scores]) -> None:
  """Adds the differences from the references, paired by seed and document."""
  for step in sorted({step for _, step in found}):
    bits = {method: one.bits for (method, at), one in found.items() if at == step}
    for reference in REFERENCES:
      if reference in bits and len(bits) > 1:
        for method, gap in stats.arms(bits, reference, PAIRED).items():
          where = {'new': label, 'method': method, 'step': step}
          rows.add(where, f'bits_above_{reference}', gap, 'bits/byte')


def check_own(config: ConfigDict) -> None:
  """Raises InputError for old models that cannot be trained or scored."""
  fit.check(config.base, 'base')
  scoring.check_family('old', config.old.family, config.old.vocab_size)
  scoring.old_text(config)
  scoring.held_out(config)


def check(config: ConfigDict) -> None:
  """Raises InputError for unknown methods, or new tokenizers that cannot be learned."""
  options = config.transplant
  check_own(config)
  for method in options.methods:
    found = methods.find(method.removeprefix(PREFIX))
    if method.startswith('omp') and found.k > config.base.dim:
      raise InputError(
        f'transplant.methods: {method} combines {found.k} rows; at most base.dim={config.base.dim} '
        'are allowed.'
      )
  for field in ('short', 'long'):
    if unknown := [one for one in options[field] if one not in options.methods]:
      raise InputError(f'transplant.{field}: {unknown[0]!r} is not in transplant.methods.')
  labels = [label for label, *_ in options.new_tokenizers]
  if options.continued not in labels:
    raise InputError(
      f'transplant.continued must be one of {", ".join(labels)}; got {options.continued!r}.'
    )
  known = {(config.old.family, config.old.vocab_size, config.data.source): 'the old one'}
  for label, family, vocab_size, source in options.new_tokenizers:
    scoring.check_family('transplant.new_tokenizers', family, vocab_size)
    sources.open_source(source, 'train')
    twin = known.setdefault((family, vocab_size, source), label)
    if twin != label or labels.count(label) > 1:
      raise InputError(
        f'transplant.new_tokenizers: {label} is there twice.'
        if twin == label
        else f'transplant.new_tokenizers: {label} is the same tokenizer as {twin}.'
      )


def train_specs(config: ConfigDict) -> TrainSpecs:
  """The old model."""
  model = scoring.make_model(config, config.old.vocab_size)
  return {'transplant/old': lambda: fit.train_spec(config.base, model)}


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Bits per byte before and after continued training."""
  options = config.transplant
  measured = select(rows, 'transplant', 'bits_per_byte', new=options.continued)
  shown = ('scratch', *options.long)
  points = learning.by_steps(row for row in measured if row.where['method'] in shown)
  old = select(rows, 'transplant', 'bits_per_byte', method='unchanged')
  labels = ['the old model', 'the old model, trained as much further']
  levels = dict(zip(labels, [row.measured or 0.0 for row in old]))
  title = f'Continued training, tokenizer {options.continued!r}'
  panel = plots.row_curves(title, 'steps', 'bits per byte', points, levels=levels)
  caption = 'Bits per byte of the same held-out text before, in and after continued training.'
  found = [panel] if points else []
  found += learning.panels(rows, 'transplant_learning')
  return {'transplant.png': plots.Picture(caption, found)}


TABLE = Table(
  'transplant',
  measure,
  'A model for another tokenizer: bits per byte of the same held-out text. `step=0` is the '
  'transplant itself, later steps are of continued training of all parameters on the text of the '
  'old model. `unchanged` is the old model with its tokenizer, before and after as much continued '
  'training. `scratch` starts from random '
  'weights and is trained with the new tokenizer for `step` steps; with as many steps as the old '
  'model it is the donor of the methods that need one. Compare those only with each other, since '
  'a donor costs as much as the old model. nats_exact and nats_new split the loss by tokens that '
  'the old tokenizer has and tokens that it lacks. Differences are paired by seed and document. '
  'method_seconds leaves out external vectors and donors. `tokens_trained` are the tokens of text '
  'in all training of the model after the old one. `distilled_NAME` is trained before step 0, and '
  'in that training the old model reads the same text too; so at the same step it has had more '
  'training than other methods. `wechsel` copies shared tokens here, as `focus` does.',
  (
    'bits_per_byte', 'ratio_to_old', 'nats_exact', 'nats_new', 'share_bytes_new',
    'denominator_share_new', 'bits_above_random', 'bits_above_mean', 'bits_above_parts',
    'norm_ratio_new', 'method_seconds', 'tokens_trained',
  ),
  check=check,
  pictures=pictures,
  also={'transplant_learning': (learning.CAPTION, learning.COLUMNS)},
  train_specs=train_specs,
  sources=lambda config: tuple(
    dict.fromkeys(
      [config.data.source, *(source for *_, source in config.transplant.new_tokenizers)]
    )
  ),
)  # fmt: skip
