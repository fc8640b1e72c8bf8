# SPDX-License-Identifier: Apache-2.0
"""What `experiments.tools.status` tells of a run's folder."""

import json
import os
import shutil
import uuid

import pytest

from experiments.tools import status
from lib.errors import InputError
from lib.mirror import Mirror
from tests.helpers import faulty

NOW = 2_000_000_000


def step(number, **more):
  return {
    'run': 'k=2', 'step': number, 'steps': 1000, 'loss': [2.0, 4.0], 'gradient_norm': 1.0,
    'bits_per_byte': [1.0, 1.5], 'tokens_per_second': 12345.6, 'seconds': 0.5 * number,
  } | more  # fmt: skip


@pytest.fixture
def workdir(tmp_path):
  """A run that stands at step 400 of 1,000, at half a second a step."""
  lines = [step(number) for number in range(10, 401, 10)]
  lines.append({'run': 'k=2', 'step': 400, 'validation/bits_per_byte': 1.1, 'seconds': 200.0})
  files = {
    'config.json': '{}',
    'tables/ngram.json': '{}',
    'checkpoints/k=2/300/manifest': '',
    'checkpoints/k=2/500.orbax-checkpoint-tmp/manifest': '',
    'metrics.jsonl': '\n'.join(map(json.dumps, lines)) + '\n{"run": "k=2", "st',
  }
  for name, content in files.items():
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (NOW - 600, NOW - 600))
  os.utime(tmp_path / 'metrics.jsonl', (NOW - 5, NOW - 5))
  return tmp_path


def test_a_run_in_progress_is_told_from_its_files(workdir):
  assert status.report(workdir, NOW).splitlines() == [
    'tables finished: ngram',
    'model: k=2',
    'step 400 of 1,000: loss 3.0000, 1.2500 bits/byte, 12,346 tokens/s',
    'time left: 5 min of steps; evaluations and checkpoints come on top',
    'last checkpoint: step 300, 10 min ago',
    'last write 5 s ago: the run seems alive',
  ]


def test_silence_and_the_end_are_told_apart(workdir):
  assert 'was stopped, or does something' in status.report(workdir, NOW + 3600)
  (workdir / 'report.md').write_text('')
  os.utime(workdir / 'report.md', (NOW, NOW))
  assert 'finished 60 min ago' in status.report(workdir, NOW + 3600)
  (workdir / 'metrics.jsonl').write_text('')  # begun again
  os.utime(workdir / 'metrics.jsonl', (NOW + 1, NOW + 1))
  assert 'no model has trained yet\nlast write 2 s ago' in status.report(workdir, NOW + 3)


def test_what_the_loop_writes_is_what_status_reads(tmp_path):
  faulty.run(tmp_path, 12)
  (tmp_path / 'config.json').write_text('{}')
  told = status.report(tmp_path, NOW)
  assert 'step 12 of 12: loss' in told
  assert 'last checkpoint: step 12, ' in told


def test_a_bucket_is_told_of_like_a_folder(workdir, tmp_path_factory, monkeypatch, capsys):
  copy = status.outline(f'file://{workdir}', tmp_path_factory.mktemp('outline'))
  assert status.report(copy, NOW) == status.report(workdir, NOW)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
  bucket = Mirror(f'memory://{uuid.uuid4().hex}/run')
  bucket.fetch()
  shutil.copytree(workdir, bucket.folder, dirs_exist_ok=True)
  (bucket.folder / 'results.json').write_text('{}')
  os.utime(bucket.folder / 'results.json', (NOW - 1, NOW - 1))
  (bucket.folder / 'report.md').write_text('')
  os.utime(bucket.folder / 'report.md', (NOW, NOW))
  bucket.send()
  status.execute(bucket.url)
  told = capsys.readouterr().out
  assert 'step 400 of 1,000' in told
  assert 'finished 0 s ago' in told


@pytest.mark.parametrize('place', ['.', 'memory://nothing'])
def test_what_is_no_workdir_is_refused(place, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError, match=f'{place} is not a workdir'):
    status.execute(place)


def test_one_folder_is_named():
  with pytest.raises(InputError, match='which run'):
    status.execute()
