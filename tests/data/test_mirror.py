# SPDX-License-Identifier: Apache-2.0
"""A workdir in a bucket: stores that fsspec has without a network stand for one."""

import uuid

import fsspec
import pytest

from lib.errors import InputError
from lib.mirror import Mirror
from lib.train import metrics
from tests.helpers import faulty


@pytest.fixture
def url(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  return f'memory://bucket-{uuid.uuid4().hex}/run'


def test_changed_files_are_sent_and_another_machine_fetches_them(url, tmp_path, monkeypatch):
  here = Mirror(url)
  here.fetch()
  (here.folder / 'tables').mkdir()
  (here.folder / 'tables/ngram.json').write_text('1')
  (here.folder / 'metrics.jsonl').write_text('a\n')
  (here.folder / 'report.md.7.partial').write_text('half')
  here.send()
  sent = []
  there = fsspec.filesystem('memory')
  original = type(there).put_file
  monkeypatch.setattr(
    type(there), 'put_file',
    lambda self, path, to: sent.append(to.split('/')[-1]) or original(self, path, to),
  )  # fmt: skip
  with (here.folder / 'metrics.jsonl').open('a') as file:
    file.write('b\n')
  here.send()
  here.send()
  assert sent == ['metrics.jsonl']
  there.pipe(f'{url}/checkpoints/train/3/state', b'large')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'other machine'))
  other = Mirror(url)
  other.fetch()
  names = sorted(p.relative_to(other.folder).as_posix() for p in other.folder.rglob('*.*'))
  assert names == ['metrics.jsonl', 'tables/ngram.json']
  assert (other.folder / 'metrics.jsonl').read_text() == 'a\nb\n'
  other.send()
  assert sent == ['metrics.jsonl']


def test_a_url_of_no_kind_is_refused(url):
  with pytest.raises(InputError, match='cannot use the workdir nowhere://run'):
    Mirror('nowhere://run')


def test_a_run_whose_machine_is_lost_goes_on_from_the_bucket(tmp_path, monkeypatch):
  faulty.run(tmp_path / 'unbroken', 24)
  for number, steps in enumerate((15, 24)):  # each on a new machine
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / f'machine{number}'))
    mirror = Mirror(f'file://{tmp_path}/bucket')
    mirror.fetch()
    faulty.run(mirror.folder, steps, mirror=mirror)
    assert not (mirror.folder / 'checkpoints').exists()
    mirror.send()
  assert (tmp_path / 'bucket/checkpoints/train/24').is_dir()
  losses = lambda name: {
    line['step']: line['loss']
    for line in metrics.read(tmp_path / name / 'metrics.jsonl') if 'loss' in line
  }  # fmt: skip
  assert losses('bucket') == losses('unbroken')
  assert set(faulty.record(tmp_path / 'unbroken')) <= set(faulty.record(tmp_path / 'bucket'))
