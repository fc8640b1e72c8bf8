# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed again and again (`make faults`, `make soak`): see docs/faults.md."""

import functools
import json
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import faulty

ROOT = pathlib.Path(__file__).parents[1]
KILLS = int(os.environ.get('KILLS', '20'))
GRACE = 30  # seconds: what Kubernetes and Google's spot machines give


def end(process):
  """Waits for a life to end by itself; its exit code."""
  process.join(300)
  assert process.exitcode is not None, 'still running after five minutes'
  return process.exitcode


@pytest.fixture(scope='module', params=[1, 2], ids=['one lane', 'two lanes'])
def unbroken(request, tmp_path_factory):
  """A run that nothing stopped: its record, its metrics, its seconds, and what starts another."""
  start = functools.partial(faulty.start, lanes=request.param)
  folder = tmp_path_factory.mktemp('unbroken')
  assert end(start(folder)) == 0  # fills the compilation cache
  again = tmp_path_factory.mktemp('again')
  begin = time.monotonic()
  assert end(start(again)) == 0
  assert faulty.record(again) == faulty.record(folder)
  assert len(faulty.record(folder)) == faulty.STEPS + 1
  return faulty.record(folder), metrics(folder), time.monotonic() - begin, start


def metrics(folder):
  """Lines of metrics.jsonl without their times."""
  lines = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
  return [{name: line[name] for name in line if 'second' not in name} for line in lines]


def writing(folder: pathlib.Path) -> bool:
  """Whether a checkpoint is half there."""
  return any((folder / 'checkpoints/train').glob('*tmp*'))


def kill_once(process, folder, seconds, dice):
  """Kills a life at a random moment, every other time once a checkpoint is being written."""
  stop = time.monotonic() + dice.uniform(0, seconds)
  during = dice.random() < 0.5
  while process.is_alive() and time.monotonic() < stop + seconds * during:
    if during and time.monotonic() > stop and writing(folder):
      time.sleep(dice.uniform(0, 0.03))
      break
    time.sleep(0.001)
  process.kill()
  process.join()
  return process.exitcode == -signal.SIGKILL


def test_killed_at_random_moments_nothing_differs(unbroken, tmp_path):
  record, lines, seconds, start = unbroken
  seed = random.randrange(2**32)
  dice, kills, torn, taken, runs = random.Random(seed), 0, 0, 0, 0
  while kills < KILLS:
    folder = tmp_path / f'run{runs}'
    folder.mkdir()
    runs += 1
    while True:
      process = start(folder)
      if kills < KILLS and kill_once(process, folder, seconds, dice):
        kills += 1
        torn += writing(folder)
      elif end(process) == 0:
        break
    seen = faulty.record(folder)
    taken += len(seen) - 1
    assert set(seen) == set(record), f'seed {seed}: a step differs, or is missing'
    assert metrics(folder) == lines, f'seed {seed}'
  print(
    f'{kills} kills, {torn} of them with a checkpoint half written; {runs} runs of {faulty.STEPS} '
    f'steps took {taken} steps; an unbroken run takes {seconds:.1f} s.'
  )
  assert torn


def test_sigterm_at_random_moments_saves_within_seconds(unbroken, tmp_path):
  record, lines, seconds, start = unbroken
  longest, stops, runs = 0.0, 0, 0
  while stops < KILLS // 4:
    folder = tmp_path / f'run{runs}'
    folder.mkdir()
    runs += 1
    while True:
      process = start(folder)
      time.sleep(random.uniform(0, seconds))
      before = newest(folder)
      begin = time.monotonic()
      process.terminate()
      code = end(process)
      longest = max(longest, time.monotonic() - begin)
      assert code in (0, -signal.SIGTERM)
      if len(set(faulty.record(folder))) == len(record):
        break
      if code != 0:  # it came before the loop had the signal, or after: no step was under way
        continue
      stops += 1
      assert 'stopped by SIGTERM' in (folder / 'log').read_text().splitlines()[-1]
      # What had been done is saved: the next life takes no step twice.
      assert newest(folder) >= before
    assert sorted(faulty.record(folder)) == sorted(record), 'a step was taken twice'
    assert metrics(folder) == lines
  print(f'{stops} times SIGTERM in {runs} runs; the last word came after {longest:.1f} s at most')
  assert longest < GRACE


def joined(workdir, steps):
  """The tiny model trained by two processes, begun; its words go to `workdir`/log."""
  workdir.mkdir(exist_ok=True)
  with (workdir / 'log').open('w') as log:
    return subprocess.Popen(
      [sys.executable, '-m', 'experiments.tools.launch', '--processes=2', '--grace=10', '--',
       '-m', 'tests.helpers.joined', str(workdir), str(steps), '{"data": 2}'],
      cwd=ROOT, stderr=log,
    )  # fmt: skip


def children(process):
  """Ids of the processes that one has started."""
  task = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children')
  return [int(child) for child in task.read_text().split()]


def losses(workdir):
  return {line['step']: line['loss'] for line in metrics(workdir) if 'loss' in line}


def wait_for(workdir, step):
  """Waits until a run has taken this step."""
  stop = time.monotonic() + 300
  while time.monotonic() < stop:
    if (workdir / 'metrics.jsonl').exists() and max(losses(workdir), default=0) >= step:
      return
    time.sleep(0.05)
  raise AssertionError((workdir / 'log').read_text())


def test_two_processes_end_with_one_of_them_or_at_one_step_and_go_on(tmp_path):
  assert joined(tmp_path / 'unbroken', 30).wait(600) == 0
  folder = tmp_path / 'broken'
  process = joined(folder, 30)
  wait_for(folder, 5)
  begin = time.monotonic()
  os.kill(children(process)[1], signal.SIGKILL)
  assert process.wait(120) == 128 + signal.SIGKILL
  print(f'the other of two processes ended {time.monotonic() - begin:.1f} s after the first')
  assert 'launch: a process ended with code -9' in (folder / 'log').read_text()
  process = joined(folder, 30)
  wait_for(folder, 12)
  begin = time.monotonic()
  process.terminate()
  process.wait(120)
  assert time.monotonic() - begin < GRACE
  said = re.findall(r'stopped by SIGTERM at step (\d+), saved', (folder / 'log').read_text())
  assert len(said) == 2
  assert len(set(said)) == 1
  assert newest(folder) == int(said[0])
  assert joined(folder, 30).wait(600) == 0
  assert losses(folder) == losses(tmp_path / 'unbroken')


def markov(workdir, limit=resource.RLIM_INFINITY):
  """The smallest training run by the command line, no file of which may pass `limit` bytes."""
  return subprocess.run(
    [sys.executable, '-m', 'experiments.markov', f'--workdir={workdir}',
     f'--config={ROOT}/configs/markov.py:smoke,tables=transformer', '--config.orders=(1,)'],
    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    # Python itself would leave parts of its compiled modules, and fall over them.
    cwd=ROOT, env=os.environ | {'PYTHONDONTWRITEBYTECODE': '1'},
    capture_output=True, text=True, check=False,
  )  # fmt: skip


def test_a_full_disk_is_said_in_a_sentence_and_the_same_command_goes_on(tmp_path):
  done = markov(tmp_path / 'work', 20_000)
  assert done.returncode == 2, done.stderr
  last = done.stderr.splitlines()[-1]
  assert last.startswith('markov: cannot read or write')
  assert 'File too large; fix that, and the same command resumes' in last
  assert 'Traceback' not in done.stderr
  assert markov(tmp_path / 'work').returncode == 0


def test_a_workdir_that_cannot_be_is_said_in_a_sentence():
  done = markov('/proc/nowhere')
  assert done.returncode == 2, done.stderr
  assert 'markov: cannot write to the workdir /proc/nowhere: ' in done.stderr
  assert 'Traceback' not in done.stderr


def newest(folder):
  return max(
    (int(p.name) for p in (folder / 'checkpoints/train').glob('*') if p.name.isdigit()), default=-1
  )
