# SPDX-License-Identifier: Apache-2.0
"""What every recipe shares: start-up, the workdir, results and how a run ends."""

import itertools
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from configs.common import check_tables
from experiments import command_line
from experiments.recipe import Recipe, Run, Table, plain
from lib import atomic, cache, errors, memory
from lib.data import sources
from lib.data.description import Description
from lib.data.overlap import STRETCH
from lib.errors import InputError
from lib.mirror import Mirror
from lib.parallel import processes, sharding
from lib.report import plots, published, results, tables
from lib.train import loop

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


def main(recipe: Recipe) -> None:
  """Runs a recipe from the command line and exits: 0 done, 1 a fault, 2 bad input."""
  memory.keep_freed(recipe.large_steps)
  logging.set_verbosity(logging.ERROR)
  # What orbax reports it also raises, and it warns of strings in checkpoints.
  logging.get_absl_logger().addFilter(lambda record: 'orbax' not in record.pathname)
  try:
    command_line.parse(recipe.name)
    app.run(lambda _: execute(recipe), flags_parser=lambda arguments: arguments)
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


def execute(recipe: Recipe) -> None:
  """Measures the chosen tables, keeping each finished one, and writes the report."""
  signal.signal(signal.SIGTERM, _stop)  # the training loop has its own, which saves first
  if flags.FLAGS.distributed:
    processes.join()
  config = flags.FLAGS.config
  check_tables(config.tables, [table.name for table in recipe.tables])
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
  there = processes.broadcast([_kept(run, table).exists() for table in recipe.tables])
  kept = {table.name for table, exists in zip(recipe.tables, there, strict=True) if exists}
  chosen = [table for table in recipe.tables if table.name in {*config.tables, *kept}]
  described = _describe(chosen, config) if processes.is_primary() else []
  for index, table in enumerate(chosen, start=1):
    _tell(f'[{index}/{len(chosen)}] {table.name}')
    if table.name in kept:
      _tell('  kept from an earlier call')
    else:
      _measure(table, config, run)
      run.send()
  if processes.is_primary():
    _write(recipe, config, run, chosen, described)
    run.send()
  if recipe.answer and config.prompt:
    _print(recipe.answer(config, run))
  processes.wait('all is written')


def _describe(chosen: Sequence[Table], config: ConfigDict) -> list[Description]:
  """What the sources of the tables hold, said in one line each."""
  read = dict.fromkeys(source for table in chosen for source in table.sources(config))
  found = []
  for one in itertools.chain(
    map(sources.describe, read), *(table.descriptions(config) for table in chosen)
  ):
    if one not in found:
      _tell(str(one))
      found.append(one)
  return found


def _data_rows(described: Sequence[Description]) -> results.Rows:
  """How much held-out text there is, and how much of it stands in training text."""
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
  """Keeps what takes long to compile for later runs, unless the environment says where."""
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    jax.config.update('jax_compilation_cache_dir', os.fspath(cache.folder('jax')))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def _stop(*_: Any) -> None:
  raise loop.Stopped('stopped by SIGTERM; the same command goes on after the last finished table.')


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
    if processes.is_primary():
      results.write_json(known, settings)
  except OSError as error:
    raise InputError(f'cannot write to the workdir {folder}: {error.strerror}.') from error
  return folder


def _kept(run: Run, table: Table) -> pathlib.Path:
  return run.workdir / 'tables' / f'{table.name}.json'


def _measure(table: Table, config: ConfigDict, run: Run) -> None:
  """Measures a table on all processes together; the first keeps its rows and seconds."""
  start = time.perf_counter()
  rows = table.measure(config, run)
  if processes.is_primary():
    kept = _kept(run, table)
    kept.parent.mkdir(exist_ok=True)
    results.write_rows(kept, rows, time.perf_counter() - start)


def _tell(line: str) -> None:
  if processes.is_primary():
    print(line, file=sys.stderr, flush=True)


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
  """Leaves plots, results.json and report.md, and shows the summary."""
  measured = [results.read_rows(_kept(run, table)) for table in chosen]
  rows = [row for table in measured for row in table['rows']] + _data_rows(described)
  rows = published.attach(rows, recipe.name, recipe.facts(config))
  seconds = sum(table['seconds'] for table in measured)
  drawn = [table.pictures(rows, config, run) for table in chosen]
  pictures = plots.save(
    run.workdir, {name: panels for one in drawn for name, panels in one.items()}
  )
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
  print(tables.markdown([row for row in rows if recipe.shown(row)], recipe.captions))
  print(
    f'{seconds / 60:.1f} minutes of measuring. All rows and columns: '
    f'{run.workdir / "report.md"}; numbers: {run.workdir / "results.json"}; '
    f'plots: {", ".join(pictures) or "none"}'
  )
