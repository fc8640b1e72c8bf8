# SPDX-License-Identifier: Apache-2.0
"""Recipes and tools as a user runs them: by their command."""

import multiprocessing
import os
import pathlib
import resource
import runpy
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
# Commands are forked from a process that has imported what takes seconds.
_FORKS = multiprocessing.get_context('forkserver')
_FORKS.set_forkserver_preload(['experiments.runner', 'experiments.fit'])
core_seconds: list[float] = []  # of each forked command, which is no child of this process


def command(name, workdir, *flags, config='smoke'):
  """The command of a recipe; `config` is a scale, with tables after it."""
  file = f'{ROOT}/configs/{name}.py:{config}'
  return [
    sys.executable, '-m', f'experiments.{name}', f'--config={file}', f'--workdir={workdir}', *flags
  ]  # fmt: skip


def run(name, workdir, *flags, config='smoke'):
  """A finished process of it, with what it printed."""
  return forked(command(name, workdir, *flags, config=config))


def forked(arguments):
  """The finished process of a command `python -m MODULE …`, in the project's folder."""
  with tempfile.TemporaryDirectory() as folder:
    process = _FORKS.Process(target=_main, args=(arguments, dict(os.environ), folder))
    process.start()
    process.join()
    printed = [pathlib.Path(folder, name).read_text() for name in ('stdout', 'stderr')]
    core_seconds.append(float(pathlib.Path(folder, 'core_seconds').read_text()))
  return subprocess.CompletedProcess(arguments, process.exitcode, *printed)


def _main(arguments, environment, folder):
  for number, name in ((1, 'stdout'), (2, 'stderr')):
    os.dup2(os.open(f'{folder}/{name}', os.O_WRONLY | os.O_CREAT), number)
  os.chdir(ROOT)
  os.environ.update(environment)
  _, _, module, *rest = sys.orig_argv[:] = arguments
  sys.argv = [module, *rest]
  try:
    runpy.run_module(module, run_name='__main__', alter_sys=True)
  finally:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    pathlib.Path(folder, 'core_seconds').write_text(str(spent.ru_utime + spent.ru_stime))
