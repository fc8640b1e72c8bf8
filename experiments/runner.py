# SPDX-License-Identifier: Apache-2.0
"""The common parts of all recipes: start-up, the workdir, results and the end of a run."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import sys
import time
from collections.abc import Collection, Iterable, Sequence

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from configs.common import check_tables
from experiments import command_line, workdir
from experiments.minutes import MINUTES, TimeLeft
from experiments.recipe import DATA, Recipe, Run, Table, plain
from lib import atomic, cache, errors, memory, progress, provenance, signals
from lib.data import overlap, sources
from lib.data.description import Description
from lib.errors import InputError
from lib.mirror import Mirror
from lib.parallel import processes, sharding
from lib.provenance import Identity
from lib.report import page, plots, published, results, sections, tables
from lib.train import loop


def main(recipe: Recipe) -> None:
  """Runs a recipe from the command line and exits: 0 done, 1 a fault, 2 bad input, 130 Ctrl-C, 143
  SIGTERM."""
  signals.listen(recipe.name)
  memory.keep_freed(recipe.large_steps)
  progress.silence_libraries()
  try:
    command_line.parse(recipe.name)
    app.run(lambda _: execute(recipe), flags_parser=lambda arguments: arguments)
  except (InputError, flags.Error) as error:
    sys.exit(_say(recipe, error, 2))
  except loop.Diverged as error:
    sys.exit(_say(recipe, error, 1))
  except loop.Stopped as error:
    sys.exit(_say(recipe, error, error.code))
  except MemoryError as error:
    sys.exit(_say(recipe, InputError(f'no memory is left ({error}): choose smaller sizes.'), 2))
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
    f'cannot read or write {place}: {why}; fix that, and the same command resumes from the '
    'last save.'
  )


def execute(recipe: Recipe) -> None:
  """Measures the chosen tables, keeping each finished one, and writes the report."""
  if flags.FLAGS.distributed:
    processes.join()
  progress.be_quiet(flags.FLAGS.quiet)
  config = flags.FLAGS.config
  check_tables(config.tables, [table.name for table in recipe.tables])
  workdir.check_place(flags.FLAGS.workdir)
  recipe.check(config)
  mesh = sharding.make_mesh(config.mesh)
  changed = config_flags.get_override_values(flags.FLAGS['config'])
  recipe.check_sizes(config, mesh, weigh=bool(changed) or config.scale not in ('smoke', 'cpu'))
  keep_compiled()
  with contextlib.ExitStack() as held:
    place, mirror = flags.FLAGS.workdir, None
    if '://' in place:
      mirror = Mirror(place, jax.process_index())
      held.enter_context(workdir.locked(mirror.folder.with_suffix('.lock'), place))
      mirror.fetch()
      place = mirror.folder
    run = Run(pathlib.Path(place), mesh, mirror)
    # Tables of earlier calls in this workdir stay in its report.
    there = processes.broadcast([workdir.table_of(run, table).exists() for table in recipe.tables])
    kept = {table.name for table, exists in zip(recipe.tables, there, strict=True) if exists}
    chosen = [table for table in recipe.tables if table.name in {*config.tables, *kept}]
    described = _describe(chosen, config) if processes.is_primary() else []
    run = dataclasses.replace(run, identity=_identity(config, described))
    held.enter_context(workdir.opened(run.workdir, run.identity))
    _run(recipe, config, run, chosen, kept, described)


def _run(
  recipe: Recipe,
  config: ConfigDict,
  run: Run,
  chosen: Sequence[Table],
  kept: Collection[str],
  described: Sequence[Description],
) -> None:
  """Measures the chosen tables that are not finished, and writes the report."""
  minutes = MINUTES.get(recipe.name, {})
  weights = {
    table.name: minutes.get(table.name, 1.0) * (table.name not in kept) for table in chosen
  }
  left = TimeLeft(weights, 1.0 if config.scale == 'cpu' and minutes else None)
  continued = (run.workdir / 'checkpoints').exists()
  for index, table in enumerate(chosen, start=1):
    _tell(f'[{index}/{len(chosen)}] {table.name}, {left.reaches(table.name)}')
    if table.name in kept:
      _tell('  kept from an earlier call')
    else:
      _measure(table, config, run, continued)
      run.send()
  if processes.is_primary():
    _write(recipe, config, run, chosen, described)
    run.send()
  if recipe.answer and config.prompt:
    _print(recipe.answer(config, run))
  processes.wait('all is written')


def _describe(chosen: Sequence[Table], config: ConfigDict) -> list[Description]:
  """The contents of the tables' sources, printed in one line each."""
  read = dict.fromkeys(source for table in chosen for source in table.sources(config))
  found = []
  for one in itertools.chain(
    map(sources.describe, read), *(table.descriptions(config) for table in chosen)
  ):
    if one not in found:
      _tell(str(one))
      found.append(one)
  return found


def _identity(config: ConfigDict, described: Sequence[Description]) -> Identity:
  """The identity of this run, computed by the first process."""
  texts = {one.source: one.digest for one in described}
  own = provenance.identity(workdir.settings(plain(config)), texts, overlap.VERSION)
  return processes.gathered(own)[0]


def _data_rows(described: Sequence[Description]) -> results.Rows:
  """The amount of held-out text, and its overlap with training text."""
  rows = results.Rows(DATA)
  for one in described:
    note = 'of a sample, not cut: a lower bound' if one.sampled else ''
    for split, (_, after, kept) in one.overlaps.items():
      where = {'source': one.source.replace(',', ';'), 'split': split}
      rows.add(where, 'documents', one.documents[split], 'documents')
      rows.add(where, 'bytes', one.bytes[split], 'bytes')
      rows.add(where, 'share_kept', kept, 'fraction')
      rows.add(where, 'overlap', after, 'fraction', note)
  return rows


def keep_compiled() -> None:
  """Caches compiled programs for later runs, unless the environment sets a folder."""
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    jax.config.update('jax_compilation_cache_dir', os.fspath(cache.folder('jax')))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def _measure(table: Table, config: ConfigDict, run: Run, continued: bool) -> None:
  """Measures a table on all processes together; the first keeps its rows and seconds.

  The seconds are of this call alone: of a table that was begun before, or whose models may be from
  an earlier call (`continued`), the rows say that it was resumed.
  """
  kept = workdir.table_of(run, table)
  begun, made = kept.with_suffix('.begun'), provenance.measured()
  if processes.is_primary():
    kept.parent.mkdir(exist_ok=True)
    made |= {'resumed': table.name} if continued or begun.exists() else {}
    begun.touch()
  start = time.perf_counter()
  rows = table.measure(config, run)
  if processes.is_primary():
    results.write_rows(kept, rows, time.perf_counter() - start, run.identity, made)
    begun.unlink()


def _tell(line: str) -> None:
  if processes.is_primary():
    progress.say(line)


def _print(parts: Iterable[str]) -> None:
  for part in itertools.chain(parts, ['\n']):
    if processes.is_primary():
      print(part, end='', flush=True)


def _write(
  recipe: Recipe,
  config: ConfigDict,
  run: Run,
  chosen: Sequence[Table],
  described: Sequence[Description],
) -> None:
  """Writes plots, results.json, tables as CSV and report.md, and prints the verdicts."""
  measured = [results.read_rows(workdir.table_of(run, table)) for table in chosen]
  rows = [row for table in measured for row in table['rows']] + _data_rows(described)
  rows = published.attach(rows, recipe.name, recipe.facts(config))
  by_table = {table.name: one['seconds'] for table, one in zip(chosen, measured, strict=True)}
  seconds = sum(by_table.values())
  drawn = [table.pictures(rows, config, run) for table in chosen]
  pictures = plots.save(
    run.workdir, {name: panels for one in drawn for name, panels in one.items()}
  )
  apart = published.attach(published.unmeasured(recipe.name), recipe.name, recipe.facts(config))
  overrides = config_flags.get_override_values(flags.FLAGS['config'])
  content = results.content(
    [*rows, *apart],
    experiment=recipe.name,
    config=plain(config),
    overrides=overrides,
    devices=[f'{device.platform}:{device.device_kind}' for device in jax.devices()],
    seconds=by_table,
    made={table.name: one['made'] for table, one in zip(chosen, measured, strict=True)},
    pictures=pictures,
  )
  results.write_json(run.workdir / 'results.json', content)
  (run.workdir / 'tables').mkdir(exist_ok=True)
  for table in dict.fromkeys(row.table for row in rows):
    of_it = [row for row in rows if row.table == table]
    atomic.write(run.workdir / 'tables' / f'{table}.csv', tables.as_csv(of_it))
  aside = workdir.ASIDE
  changed = {key: str(value) for key, value in overrides.items() if key.split('.')[0] not in aside}
  section = recipe.section(content, rows, changed, run.workdir)
  more = f'{len(apart)} published numbers are not measured by any table; results.json has them.'
  report = [
    page.Heading(recipe.title, 1),
    *sections.run(section),
    *sections.whole_tables(section, rows),
    *[page.Text(more)] * bool(apart),
  ]
  atomic.write(run.workdir / 'report.md', page.markdown(report, run.workdir))
  print(tables.narrow(section.rows))
  print(sections.terminal(section))
  print(
    f'\n{seconds / 60:.1f} minutes of measuring. In {run.workdir}:\n'
    '  report.md (verdicts, tables, pictures), tables/*.csv, results.json, '
    f'{len(pictures)} PNG files'
  )
  if (curves := run.workdir / 'tensorboard').exists():
    print(f'Curves of training: tensorboard --logdir {curves}')
