# SPDX-License-Identifier: Apache-2.0
"""Recipes as a user runs them: by their command."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def command(name, workdir, *flags, config='smoke'):
  """The command of a recipe; `config` is a scale, with tables after it."""
  file = f'{ROOT}/configs/{name}.py:{config}'
  return [
    sys.executable, '-m', f'experiments.{name}', f'--config={file}', f'--workdir={workdir}', *flags
  ]  # fmt: skip


def run(name, workdir, *flags, config='smoke', **environment):
  """A finished process of it, with what it printed."""
  return subprocess.run(
    command(name, workdir, *flags, config=config), cwd=ROOT, env=os.environ | environment,
    capture_output=True, text=True, check=False,
  )  # fmt: skip
