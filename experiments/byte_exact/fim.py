# SPDX-License-Identifier: Apache-2.0
"""Table `fim`: the rest of an identifier, between the text before and after it."""

import re

import numpy as np
from ml_collections import ConfigDict

from experiments.byte_exact import cut, models
from experiments.recipe import Run, Table, naming
from lib.data import excerpts, infilling
from lib.data.excerpts import Excerpts
from lib.errors import InputError
from lib.report.results import Rows

NAME = re.compile(rb'[A-Za-z_][A-Za-z_0-9]{5,}')
COPIES = 64  # stretches of a training document


def holes(config: ConfigDict) -> tuple[Excerpts, np.ndarray]:
  """Excerpts of held-out text, and in each the stretch [first, stop) that is left out, [N, 2].

  It is the rest of an identifier of six letters or more, from a random letter of it but the first.
  """
  options = config.fim
  text = excerpts.of_split(
    options.source, 'test', length=options.length, total=2 * options.length * options.texts,
    most=models.MOST,
  )  # fmt: skip
  rng, found = np.random.default_rng(config.seed), np.zeros((len(text), 2), int)
  for row, one in zip(found, text.texts, strict=True):
    # An identifier at the end of the excerpt may be cut off.
    names = [name for name in NAME.finditer(one) if name.start() > 0 and name.end() < len(one)]
    if names:
      name = names[rng.integers(len(names))]
      row[:] = rng.integers(name.start() + 1, name.end()), name.end()
  some = found[:, 1] > 0
  return text.where(some), found[some]


def measure(config: ConfigDict, run: Run) -> Rows:
  """Nats of the missing bytes, and how often the most likely bytes are the missing ones."""
  options, rows = config.fim, Rows('fim')
  text, places = holes(config)
  prompts = [
    infilling.prompt(one[:first], one[stop:])
    for one, (first, stop) in zip(text.texts, places.tolist(), strict=True)
  ]
  middles = [
    one[first:stop] + infilling.END
    for one, (first, stop) in zip(text.texts, places.tolist(), strict=True)
  ]
  read = lambda source: infilling.WithHoles(source, options.length, COPIES, config.seed)
  for name in options.tokenizers:
    trained = models.trained(config, run, name, label=f'fim-{name}', text=options.source, read=read)
    found = {
      method: cut.continuations(trained, prompts, middles, method, options.beam, options.greedy)
      for method in cut.METHODS
    }
    cut.add(rows, {'tokenizer': name}, 'of_middle', found, text, np.ones(len(text), bool))
  return rows


def check(config: ConfigDict) -> None:
  """Raises InputError for models that cannot be trained, or text without holes."""
  models.check_model(config)
  with naming('fim.source'):
    if not len(holes(config)[0]):
      raise InputError(f'no excerpt of {config.fim.source} has an identifier: use source code.')


TABLE = Table(
  'fim',
  measure,
  'The rest of an identifier is left out of held-out source code, from a random letter on. Models '
  'are trained on texts with random holes, in the order suffix, prefix, middle; so a prompt ends '
  'inside an identifier. Predicted are the bytes that were left out and a mark of their end. '
  'Methods and columns as in `cut`. ± is one standard error over seeds × documents; differences '
  'are paired.',
  ('nats_of_middle', 'nats_above_exact', 'nats_lost', 'exact_completions'),
  check=check,
  train_specs=models.train_specs,
  sources=lambda config: (config.fim.source,),
)
