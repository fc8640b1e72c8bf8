# SPDX-License-Identifier: Apache-2.0
"""What every recipe shares: flags, start-up, the workdir, results and how a run ends."""

import dataclasses
import itertools
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from absl import app, flags, logging
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from configs.common import check_tables
from lib import atomic, cache, errors, memory
from lib.data import pipeline, sources
from lib.data.description import Description
from lib.data.overlap import STRETCH
from lib.errors import InputError
from lib.mirror import Mirror
from lib.report import published, results, tables
from lib.train import loop, processes, sharding
from lib.train.experiment import Experiment
from lib.train.state import State

ASIDE = (
  'tables',
  'mesh',
  'accumulate',
  'profile',
  'prompt',
  'generate',
)  # fields that may change from call to call in a workdir

DATA = 'data'  # a table that every recipe with real text has
CAPTION = (
  'Held-out text. `overlap` is the share of its bytes that lie inside exact stretches of at least '
  f'{STRETCH} bytes that also stand in the training text, after such text was cut out; '
  '`share_kept` is the share of the bytes that the cut left.'
)

Table = Callable[[ConfigDict, 'Run'], list[results.Row]]
Plots = Callable[[Sequence[results.Row], ConfigDict, 'Run'], list[str]]


@dataclasses.dataclass(frozen=True)
class Run:
  """Where a recipe works: its folder and its devices; the folder may be a bucket's copy."""

  workdir: pathlib.Path
  mesh: Mesh
  mirror: Mirror | None = None

  def send(self) -> None:
    """Sends what is new in the folder to the bucket, if there is one."""
    if self.mirror and processes.first():
      self.mirror.send()

  def keep(self, name: str, content: bytes | str) -> None:
    """Leaves a file in the workdir, whole and once, however many processes have its content."""
    if processes.first():
      atomic.write(self.workdir / name, content)


@dataclasses.dataclass(frozen=True)
class Plan:
  """A model that a recipe trains, as far as it is known without data: enough to compile its step.

  Attributes:
    experiment: whose batches need not be there.
    optimizer: the optax chain.
    batch: shapes of a batch.
    vocab_size: ids that it may hold.
  """

  experiment: Experiment
  optimizer: optax.GradientTransformation
  batch: Mapping[str, jax.ShapeDtypeStruct]
  vocab_size: int

  def drawn(self) -> dict[str, np.ndarray]:
    """A batch of random tokens without padding, each scored; further fields are 0."""
    size = self.batch['targets'].shape
    ids = np.random.default_rng(0).integers(0, self.vocab_size, size)
    known = pipeline.whole(ids, self.vocab_size) | {'scored': np.ones(size, np.int32)}
    zeros = lambda one: np.zeros(one.shape, one.dtype)
    return {name: known.get(name, zeros(one)) for name, one in self.batch.items()}


def source_of(config: ConfigDict) -> Sequence[str]:
  """The source of text in the config's place for it, if it has one."""
  return (config.data.source,) if 'data' in config else ()


@dataclasses.dataclass(frozen=True)
class Recipe:
  """An experiment of one paper.

  Attributes:
    name: of the experiment, its config file and its published numbers (lib/report/published).
    title: headline of the report.
    tables: name -> function that measures it, in the order of the report.
    captions: name -> how to read the table.
    summary: table -> (row pattern, columns) that the terminal shows; the report shows all.
    check: raises InputError for a config that cannot be run, before anything is written.
    plots: draws PNGs into the workdir from the rows, and names them.
    facts: config -> what must agree for a published number to stand beside a measured one.
    plans: config -> name -> what makes the plan of one of its models, the largest first; none if
      their sizes depend on data.
    answer: what the trained models say to `config.prompt`, if the user gives one: a text, or its
      parts as they come.
    sources: the sources of text (`lib.data.sources`) that the chosen tables read.
    descriptions: of text that the recipe makes from its sources, such as folded text.
    large_steps: on a CPU its steps hold more than 64 MB (`lib.memory.keep_freed`).
  """

  name: str
  title: str
  tables: Mapping[str, Table]
  captions: Mapping[str, str]
  summary: Mapping[str, tuple[str, Sequence[str]]]
  check: Callable[[ConfigDict], None]
  plots: Plots
  facts: Callable[[ConfigDict], Mapping[str, Any]]
  plans: Callable[[ConfigDict], Mapping[str, Callable[[], Plan]]] = lambda config: {}
  answer: Callable[[ConfigDict, Run], Iterable[str]] | None = None
  sources: Callable[[ConfigDict], Sequence[str]] = source_of
  descriptions: Callable[[ConfigDict], Sequence[Description]] = lambda config: ()
  large_steps: bool = True


def main(recipe: Recipe) -> None:
  """Runs a recipe from the command line and exits: 0 done, 1 a fault, 2 bad input."""
  memory.keep_freed(recipe.large_steps)
  logging.set_verbosity(logging.ERROR)
  # What orbax reports it also raises, and it warns of strings in checkpoints.
  logging.get_absl_logger().addFilter(lambda record: 'orbax' not in record.pathname)
  try:
    _define_flags(recipe.name)
    app.run(lambda _: execute(recipe), flags_parser=_parse_flags)
  except (InputError, flags.Error) as error:
    sys.exit(_say(recipe, error, 2))
  except loop.Diverged as error:
    sys.exit(_say(recipe, error, 1))
  except loop.Stopped as error:
    sys.exit(_say(recipe, error, 0))
  except KeyboardInterrupt:
    stopped = loop.Stopped('stopped by Ctrl-C; the same command goes on from the last save.')
    sys.exit(_say(recipe, stopped, 130))
  except Exception as error:
    if (why := errors.refusal(error)) is None:
      raise
    sys.exit(_say(recipe, _refused(why, getattr(error, 'filename', None)), 2))


def _say(recipe: Recipe, error: BaseException, code: int) -> int:
  print(f'{recipe.name}: {error}', file=sys.stderr)
  return code


def _refused(why: str, path: str | None) -> InputError:
  place = path or f'the workdir {flags.FLAGS.workdir}'
  return InputError(
    f'cannot read or write {place}: {why}; mend that, and the same command goes on from the last '
    'save.'
  )


def _define_flags(name: str) -> None:
  default = pathlib.Path(__file__).parents[1] / 'configs' / f'{name}.py'
  try:  # ml_collections reads overrides of the config as soon as it is defined
    config_flags.DEFINE_config_file('config', f'{default}:cpu', 'Config, scale.', lock_config=True)
  except AttributeError as error:
    raise _no_such_field(error) from error
  flags.DEFINE_string('workdir', f'runs/{name}', 'Folder for everything this run writes.')
  flags.DEFINE_bool(
    'distributed',
    'JAX_COORDINATOR_ADDRESS' in os.environ,
    'This is one of several processes that see one workdir (docs/pod.md).',
  )


def _parse_flags(argv: Sequence[str]) -> list[str]:
  try:
    rest = flags.FLAGS(argv)
    flags.FLAGS.config.lock()  # a config file that is not there shows only when it is used
  except AttributeError as error:
    raise _no_such_field(error) from error
  except OSError as error:
    raise InputError('there is no such --config file; it is configs/NAME.py:SCALE.') from error
  if len(rest) > 1:
    raise InputError(f'argument {rest[1]!r} is not a flag; flags look like --workdir=DIR.')
  return rest


def _no_such_field(error: AttributeError) -> InputError:
  # The message is the repr of another: 'seedz'\\nDid you mean "seed" instead of "seedz"?
  words = str(error).strip('"\'').replace("\\'", '').replace('\\n', '. ')
  return InputError(f'the config has no field {words}')


def execute(recipe: Recipe) -> None:
  """Measures the chosen tables, keeping each finished one, and writes the report."""
  signal.signal(signal.SIGTERM, _stop)  # the training loop has its own, which saves first
  if flags.FLAGS.distributed:
    processes.join()
  config = flags.FLAGS.config
  check_tables(config.tables, list(recipe.tables))
  recipe.check(config)
  mesh = sharding.make_mesh(config.mesh)
  keep_compiled()
  place, mirror = flags.FLAGS.workdir, None
  if '://' in place:
    mirror = Mirror(place, jax.process_index())
    mirror.fetch()
    place = mirror.folder
  run = Run(_open_workdir(place, config), mesh, mirror)
  # Tables that an earlier call left in this workdir stay in its report.
  kept = dict(
    zip(recipe.tables, processes.agreed([_kept(run, table).exists() for table in recipe.tables]))
  )
  chosen = [table for table in recipe.tables if table in config.tables or kept[table]]
  described = _describe(recipe, config, chosen) if processes.first() else []
  for index, table in enumerate(chosen, start=1):
    _tell(f'[{index}/{len(chosen)}] {table}')
    if kept[table]:
      _tell('  kept from an earlier call')
    else:
      _measure(table, recipe, config, run)
      run.send()
  if processes.first():
    _write(recipe, config, run, chosen, described)
    run.send()
  if recipe.answer and config.prompt:
    _print(recipe.answer(config, run))
  processes.wait('all is written')


def _describe(recipe: Recipe, config: ConfigDict, chosen: Sequence[str]) -> list[Description]:
  """What the sources hold, said in one line each."""
  read = config.copy_and_resolve_references()
  read.tables = tuple(chosen)
  found = []
  for one in map(sources.describe, dict.fromkeys(recipe.sources(read))):
    _tell(str(one))
    found.append(one)
  for one in recipe.descriptions(read):
    _tell(str(one))
    found.append(one)
  return found


def _data_rows(described: Sequence[Description]) -> list[results.Row]:
  """How much held-out text there is, and how much of it stands in training text."""
  rows = []
  for one in described:
    note = 'of a sample, not cut: a lower bound' if one.sampled else ''
    for split, (_, after, kept) in one.overlaps.items():
      row = results.name(source=one.source.replace(',', ';'), split=split)
      rows += [
        results.Row(DATA, row, 'documents', one.documents[split], unit='documents'),
        results.Row(DATA, row, 'bytes', one.bytes[split], unit='bytes'),
        results.Row(DATA, row, 'share_kept', kept, unit='fraction'),
        results.Row(DATA, row, 'overlap', after, unit='fraction', note=note),
      ]
  return rows


def keep_compiled() -> None:
  """Keeps what takes long to compile for later runs, unless the environment says where."""
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    jax.config.update('jax_compilation_cache_dir', os.fspath(cache.folder('jax')))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def _stop(*_: Any) -> None:
  raise loop.Stopped('stopped by SIGTERM; the same command goes on after the last finished table.')


def plain(config: ConfigDict) -> dict[str, Any]:
  """The config as JSON-like values."""
  return json.loads(config.to_json_best_effort())


def train(
  experiment: Experiment,
  optimizer: optax.GradientTransformation,
  config: ConfigDict,
  run: Run,
  options: ConfigDict,
  *,
  name: str,
  seed: int,
) -> tuple[State, list[dict[str, Any]]]:
  """Trains by the one loop as the section `options` says, under a name in the run's workdir."""
  return loop.train(
    experiment,
    optimizer,
    steps=options.steps,
    seed=seed,
    mesh=run.mesh,
    workdir=run.workdir,
    run=name,
    evaluate_every=options.evaluate_every,
    checkpoint_every=options.checkpoint_every,
    profile=config.profile or None,
    accumulate=config.accumulate,
    config=plain(config),
    mirror=run.mirror,
  )


def _open_workdir(workdir: str | os.PathLike, config: ConfigDict) -> pathlib.Path:
  """Makes the folder, or takes up a run of the same config that lies there."""
  folder = pathlib.Path(workdir)
  settings = {k: v for k, v in plain(config).items() if k not in ASIDE}
  known = folder / 'config.json'
  begun = any((folder / part).exists() for part in ('tables', 'checkpoints'))
  if begun and known.exists() and known.read_text() != results.as_json(settings):
    raise InputError(
      f'{folder} holds a run with another config; choose a new --workdir, or delete it.'
    )
  processes.wait('the workdir is looked at')
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if processes.first():
      results.write_json(known, settings)
  except OSError as error:
    raise InputError(f'cannot write to the workdir {folder}: {error.strerror}.') from error
  return folder


def _kept(run: Run, table: str) -> pathlib.Path:
  return run.workdir / 'tables' / f'{table}.json'


def _measure(table: str, recipe: Recipe, config: ConfigDict, run: Run) -> None:
  """Measures a table on all processes together; the first keeps its rows and seconds."""
  start = time.perf_counter()
  rows = recipe.tables[table](config, run)
  if processes.first():
    kept = _kept(run, table)
    kept.parent.mkdir(exist_ok=True)
    results.write_rows(kept, rows, time.perf_counter() - start)


def _tell(line: str) -> None:
  if processes.first():
    print(line, file=sys.stderr, flush=True)


def _print(parts: Iterable[str]) -> None:
  for part in itertools.chain(parts, ['\n']):
    if processes.first():
      print(part, end='', flush=True)


def _write(
  recipe: Recipe,
  config: ConfigDict,
  run: Run,
  chosen: Sequence[str],
  described: Sequence[Description],
) -> None:
  """Leaves plots, results.json and report.md, and shows the summary."""
  measured = [results.read_rows(_kept(run, table)) for table in chosen]
  rows = [row for table in measured for row in table['rows']] + _data_rows(described)
  rows = published.attach(rows, recipe.name, recipe.facts(config))
  seconds = sum(table['seconds'] for table in measured)
  pictures = recipe.plots(rows, config, run)
  apart = published.attach(published.unmeasured(recipe.name), recipe.name, recipe.facts(config))
  devices = [f'{device.platform}:{device.device_kind}' for device in jax.devices()]
  results.write_results(
    run.workdir / 'results.json',
    [*rows, *apart],
    experiment=recipe.name,
    config=plain(config),
    overrides=config_flags.get_override_values(flags.FLAGS['config']),
    devices=devices,
    seconds=seconds,
  )
  report = [
    f'# {recipe.title}\n',
    f'Scale `{config.scale}`, {seconds / 60:.1f} minutes on {len(devices)} × {devices[0]}.\n',
    tables.markdown(rows, {**recipe.captions, DATA: CAPTION}),
    f'{len(apart)} published numbers are not measured by any table here; results.json lists them.\n'
    if apart
    else '',
    *(f'![{picture}]({picture})\n' for picture in pictures),
  ]
  atomic.write(run.workdir / 'report.md', '\n'.join(report))
  print(tables.markdown(tables.select(rows, recipe.summary), recipe.captions))
  print(
    f'{seconds / 60:.1f} minutes of measuring. All rows and columns: '
    f'{run.workdir / "report.md"}; numbers: {run.workdir / "results.json"}; '
    f'plots: {", ".join(pictures) or "none"}'
  )
