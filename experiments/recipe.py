# SPDX-License-Identifier: Apache-2.0
"""A recipe: the tables of a paper, each an object next to its code, and their common run."""

import contextlib
import dataclasses
import json
import math
import pathlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from configs.fields import Config
from lib import atomic, memory
from lib.data import pipeline
from lib.data.description import Description
from lib.data.overlap import STRETCH
from lib.errors import InputError
from lib.mirror import Mirror
from lib.parallel import processes, sharding
from lib.provenance import Identity
from lib.report import claims, tables
from lib.report.plots import Picture
from lib.report.results import Row
from lib.report.sections import Section
from lib.train import state
from lib.train.experiment import Experiment
from lib.train.optimizer import Optimizer


@dataclasses.dataclass(frozen=True)
class Run:
  """The folder and the devices of a run; the folder may be a bucket's copy.

  Attributes:
    workdir: the folder.
    mesh: the devices.
    mirror: the bucket, if there is one.
    identity: identity of the run (`lib.provenance`), which all kept files must have.
  """

  workdir: pathlib.Path
  mesh: Mesh
  mirror: Mirror | None = None
  identity: Identity = dataclasses.field(default_factory=dict, hash=False)

  def send(self) -> None:
    """Uploads new files of the folder to the bucket, if there is one."""
    if self.mirror and processes.is_primary():
      self.mirror.send()

  def keep(self, name: str, content: bytes | str) -> None:
    """Writes a file into the workdir, atomically, from the first process only."""
    if processes.is_primary():
      atomic.write(self.workdir / name, content)


@dataclasses.dataclass(frozen=True)
class TrainSpec:
  """A model that a recipe trains, as known without data: enough to compile its training step.

  Attributes:
    experiment: the model and its losses; the batches can be missing.
    optimizer: an optax chain, or what `lib.train.optimizer.make_optimizer` returns.
    batch: shapes of a batch.
    vocab_size: number of ids.
    alone: the experiment of one replica, if replicas may train by `jax.pmap`; else None.
  """

  experiment: Experiment
  optimizer: Optimizer
  batch: Mapping[str, jax.ShapeDtypeStruct]
  vocab_size: int
  alone: Experiment | None = None

  def random_batch(self) -> dict[str, np.ndarray]:
    """A batch of random tokens without padding, each scored; further fields are 0."""
    size = self.batch['targets'].shape
    ids = np.random.default_rng(0).integers(0, self.vocab_size, size)
    known = pipeline.batch_from_ids(ids, self.vocab_size) | {'scored': np.ones(size, np.int32)}
    zeros = lambda one: np.zeros(one.shape, one.dtype)
    return {name: known.get(name, zeros(one)) for name, one in self.batch.items()}


def plain(config: ConfigDict) -> dict[str, Any]:
  """The config as JSON-like values."""
  return json.loads(config.to_json_best_effort())


DATA = 'data'  # a table that every recipe with real text has
ABOUT_DATA = (
  'Held-out text. `overlap` is the share of its bytes inside exact stretches of at least '
  f'{STRETCH} bytes that also occur in the training text, after such text was cut out; '
  '`share_kept` is the share of the bytes that the cut left.'
)
TrainSpecs = Mapping[str, Callable[[], TrainSpec]]
Pictures = Mapping[str, Picture]  # by file name


@contextlib.contextmanager
def naming(field: str) -> Iterator[None]:
  """Puts the name of a field or section before the sentence of an InputError."""
  try:
    yield
  except InputError as error:
    raise InputError(f'{field}: {error}') from error
  except MemoryError as error:
    raise InputError(f'{field}: no memory is left ({error}); choose smaller sizes.') from error


def text_of(config: ConfigDict) -> Sequence[str]:
  """The source of text in the config's place for it."""
  return (config.data.source,)


@dataclasses.dataclass(frozen=True)
class Table:
  """One table of a recipe.

  Attributes:
    name: name of the table, in the config and in results.json.
    measure: (config, run) -> its rows.
    caption: explanation of the table for readers.
    shown: columns that the terminal shows; the report shows all.
    rows: whether the terminal shows the row with these coordinates; single seeds are never shown.
    check: raises InputError for a config with which the table cannot be measured.
    pictures: (rows of all tables, config, run) -> pictures of them.
    train_specs: config -> the models that it trains, the largest first, where they do not depend
      on data.
    sources: config -> the sources of text (`lib.data.sources`) that it reads.
    descriptions: config -> the text that it makes from its sources, such as folded text.
    also: further tables that `measure` gives rows of: name -> (caption, shown).
  """

  name: str
  measure: Callable[[ConfigDict, Run], Sequence[Row]]
  caption: str
  shown: Sequence[str]
  rows: Callable[[Mapping[str, str]], bool] = lambda where: True
  check: Callable[[ConfigDict], None] = lambda config: None
  pictures: Callable[[Sequence[Row], ConfigDict, Run], Pictures] = lambda rows, config, run: {}
  train_specs: Callable[[ConfigDict], TrainSpecs] = lambda config: {}
  sources: Callable[[ConfigDict], Sequence[str]] = lambda config: ()
  descriptions: Callable[[ConfigDict], Sequence[Description]] = lambda config: ()
  also: Mapping[str, tuple[str, Sequence[str]]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Recipe:
  """An experiment of one paper.

  Attributes:
    name: name of the experiment, its config file and its published numbers (lib/report/published).
    title: headline of the report.
    tables: in the order of the report.
    summary: the paper's claim in a sentence.
    facts: config -> facts that must agree before a published number is compared with a measured
      one.
    answer: the trained models' answer to `config.prompt`, if there is one: a text, or its
      parts as they come.
    check_prompt: raises InputError for a prompt that the models cannot answer.
    large_steps: on a CPU its steps use more than 64 MB (`lib.memory.keep_freed`).
    largest: the table with the largest models, if it is not the first one that has any.
  """

  name: str
  title: str
  tables: Sequence[Table]
  summary: str = ''
  facts: Callable[[ConfigDict], Mapping[str, Any]] = lambda config: {'scale': config.scale}
  answer: Callable[[ConfigDict, Run], Iterable[str]] | None = None
  check_prompt: Callable[[ConfigDict], None] = lambda config: None
  large_steps: bool = True
  largest: str = ''

  def chosen(self, config: ConfigDict) -> list[Table]:
    """The tables that a config names, in the order of the report."""
    return [table for table in self.tables if table.name in config.tables]

  def check(self, config: ConfigDict) -> None:
    """Raises InputError for a config that cannot be run, before anything is written."""
    if isinstance(config, Config):
      config.check()
    if config.profile and (len(config.profile) != 2 or config.profile[0] >= config.profile[1]):
      raise InputError(f'profile must be (first, last + 1) of steps; got {config.profile}.')
    for table in self.chosen(config):
      table.check(config)
    if self.answer and config.prompt:
      self.check_prompt(config)

  def check_sizes(self, config: ConfigDict, mesh: Mesh, weigh: bool = True) -> None:
    """Raises InputError for batches that the mesh does not divide, and models beyond memory.

    The largest model of each kind in each chosen table counts, where it does not depend on data.
    The kind is the part of its name before / or =.

    Args:
      config: of the run.
      mesh: its devices.
      weigh: whether models are measured too, which takes about a second each.
    """
    seen: set[str] = set()
    for table in self.chosen(config):
      specs = table.train_specs(config)
      first = {name.partition('/')[0].partition('=')[0]: name for name in reversed([*specs])}
      for name in [name for name in first.values() if name not in seen]:
        seen.add(name)
        with naming('m1' if name == 'm1' else table.name):
          spec = specs[name]()
          axis = spec.experiment.batch_axis
          sharding.batch_shardings(spec.batch, mesh, axis)
          if spec.batch['targets'].shape[axis] % config.accumulate:
            raise InputError(f'accumulate={config.accumulate} does not divide the batch.')
          if weigh:
            _check_memory(spec, mesh)

  def train_specs(self, config: ConfigDict) -> TrainSpecs:
    """The models of all tables, the largest first."""
    tables = sorted(self.tables, key=lambda table: table.name != self.largest)
    return {
      name: train_spec for table in tables for name, train_spec in table.train_specs(config).items()
    }

  @property
  def captions(self) -> dict[str, str]:
    """Table -> its caption."""
    also = {name: caption for table in self.tables for name, (caption, _) in table.also.items()}
    return {table.name: table.caption for table in self.tables} | also | {DATA: ABOUT_DATA}

  def shown(self, rows: Sequence[Row]) -> list[Row]:
    """The rows that the terminal shows, by table and column in their order of importance."""
    every: list[Row] = []
    for table in self.tables:
      columns = {table.name: table.shown} | {name: of for name, (_, of) in table.also.items()}
      for place in [(name, column) for name, of in columns.items() for column in of]:
        found = (row for row in rows if (row.table, row.column) == place)
        every += [row for row in found if 'seed' not in row.where and table.rows(row.where)]
    return every

  def section(
    self,
    content: Mapping[str, Any],
    rows: Sequence[Row],
    changed: Mapping[str, str],
    folder: pathlib.Path,
    remark: str = '',
  ) -> Section:
    """The judged run.

    Args:
      content: of results.json.
      rows: that it has.
      changed: fields of the config that are not those of its scale, with their values.
      folder: of the run, with its pictures.
      remark: what is wrong with it, or ''.
    """
    kinds = [
      kind for one in content['devices'] for kind in [one.partition(':')[2]] if kind != 'cpu'
    ]
    devices = [f'{count} × {kind}' for kind, count in Counter(kinds).items()]
    scale = content['config']['scale']
    return Section(
      name=self.name,
      title=self.title,
      summary=self.summary,
      scale=scale,
      changed=changed,
      minutes=content['seconds'] / 60,
      devices=', '.join(devices),
      made=_made(content),
      models=[*_models(content['config'])],
      remark=remark,
      judged=claims.judge_all(self.name, rows, same_sizes=scale == 'paper' and not changed),
      rows=self.shown(rows),
      errors=tables.errors(rows),
      captions=self.captions,
      pictures={folder / name: words for name, words in content.get('pictures', {}).items()},
    )


def _models(config: Mapping[str, Any]) -> Iterator[str]:
  """Sizes and training of the models of each section of a config that trains models."""
  for name, section in config.items():
    if not isinstance(section, Mapping) or 'layers' not in section or 'models' in section:
      continue
    size = f'`{name}` {section["layers"]} layers of width {section["dim"]}'
    if section.get('teraflops'):
      yield f'{size}, {section["teraflops"]:g} × 10¹² FLOPs of training'
    elif section.get('steps') and section.get('batch_size') and section.get('length'):
      rows = f'{section["batch_size"]:,} × {section["length"]:,} tokens'
      yield f'{size}, {section["steps"]:,} steps of {rows}'
    else:
      yield size


def _made(content: Mapping[str, Any]) -> dict[str, str]:
  """How the tables were measured: commits, days, cores, versions, and which were resumed."""
  tables = content['made'].values()
  keys = dict.fromkeys(key for one in tables for key in one)
  return {key: ', '.join(dict.fromkeys(one[key] for one in tables if key in one)) for key in keys}


def _check_memory(spec: TrainSpec, mesh: Mesh) -> None:
  """Raises InputError where a training state, its gradient and a batch exceed all memory."""
  shapes = state.prepare(spec.experiment, spec.optimizer, spec.batch, 0, mesh).shapes
  params = jax.tree.leaves(shapes['variables']['params'])
  arrays = [*jax.tree.leaves((shapes, dict(spec.batch))), *params]
  needed, free = sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays), memory.free()
  if needed > free:
    raise InputError(
      f'{sum(math.prod(x.shape) for x in params):,} parameters and a batch of '
      f'{spec.batch["targets"].shape} take {needed / 1e9:,.0f} GB at least, and '
      f'{free / 1e9:,.0f} GB are free: choose smaller sizes.'
    )
