# SPDX-License-Identifier: Apache-2.0
"""The scripts of docs/launch: what they start is a command that parses."""

import os
import pathlib
import shlex
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / 'docs/launch').glob('*.sh'))
STUB = '#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done >> "$SAID"\n'
PARSE = """
import sys
from absl import flags
from experiments import command_line
sys.argv = sys.argv[1:]
command_line.parse(sys.argv[0].removeprefix('experiments.'))
assert flags.FLAGS.distributed and flags.FLAGS.config.scale == 'paper'
"""


def parses(words):
  """Whether `python -m experiments.NAME …` is what a recipe takes."""
  place = words.index('-m')
  assert words[place - 1] == 'python'
  arguments = [sys.executable, '-c', PARSE, *words[place + 1 :]]
  return subprocess.run(arguments, cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_start_a_recipe_on_all_processes(script, tmp_path):
  for tool in ('srun', 'gcloud', 'xpk'):
    (tmp_path / tool).write_text(STUB)
    (tmp_path / tool).chmod(0o755)
  said = tmp_path / 'said'
  path = f'{tmp_path}:{os.environ["PATH"]}'
  subprocess.run([script], cwd=ROOT, env=os.environ | {'PATH': path, 'SAID': str(said)}, check=True)
  words = said.read_text().splitlines()
  command = next((word for word in words if 'python -m experiments' in word), shlex.join(words))
  assert parses(shlex.split(command.rpartition('&& ')[2].removeprefix('--command=')))


def test_the_job_for_kubernetes_starts_a_recipe_on_all_hosts():
  job = yaml.safe_load((ROOT / 'docs/launch/gke.yaml').read_text())
  (slices,) = job['spec']['replicatedJobs']
  hosts = slices['template']['spec']
  assert hosts['parallelism'] == hosts['completions'] == 8 * 8 * 4 // 4
  (container,) = hosts['template']['spec']['containers']
  assert parses([*container['command'], *container['args']])
  (volume,) = hosts['template']['spec']['volumes']
  (mount,) = container['volumeMounts']
  assert mount['name'] == volume['name']
  assert container['args'][-1].startswith(f'--workdir={mount["mountPath"]}')
