# SPDX-License-Identifier: Apache-2.0
"""What a long job says of itself."""

import io
import sys
import time

import pytest

from lib import progress
from lib.progress import Bar


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_in_a_file_a_bar_is_one_line(capsys):
  bar = Bar(total=600, desc='model')
  bar.phase('compiling')
  for _ in range(600):
    bar.set_postfix_str('loss 0.5', refresh=False)
    bar.update()
  bar.close()
  assert capsys.readouterr().err == 'model: 600 in 00:00, loss 0.5\n'


def test_in_a_file_a_long_bar_inside_another_says_lines_ever_more_rarely(capsys, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  outer, inner = Bar(total=2, desc='jobs'), Bar(total=200, desc='model')
  for _ in range(199):
    now[0] += 1.0
    inner.update()
  inner.close()
  outer.close()
  said = capsys.readouterr().err
  assert '\x1b' not in said
  assert '\n\n' not in said
  steps = [int(line.split('/200')[0].split()[-1]) for line in said.splitlines()]
  waits = [after - before for before, after in zip([0, *steps], steps)]
  assert waits[0] == progress.FIRST
  assert waits == sorted(waits)
  assert 4 < len(waits) < 12


def test_what_an_earlier_call_finished_is_not_said(capsys):
  bar = Bar(total=600, desc='model')
  bar.begin(600)
  bar.close()
  assert capsys.readouterr().err == ''


def test_a_terminal_shows_what_happens_and_the_first_step_is_no_part_of_the_pace(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', Terminal())
  now = [0.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  bar = Bar(total=11, desc='model', mininterval=0, ncols=100)
  bar.phase('compiling')
  assert 'model:   0%' in sys.stderr.getvalue()
  assert 'compiling …' in sys.stderr.getvalue()
  now[0] = 100.0
  bar.update()
  bar.restart()
  now[0] = 101.0
  bar.update()
  bar.set_postfix_str('')
  assert '2/11 [00:09 left]' in sys.stderr.getvalue()  # 9 steps of a second, not of 50


@pytest.mark.parametrize('terminal', [False, True])
def test_a_long_wait_is_not_silent_and_a_short_one_is(terminal, monkeypatch):
  stream = Terminal() if terminal else io.StringIO()
  monkeypatch.setattr(sys, 'stderr', stream)
  monkeypatch.setattr(progress, 'SILENT' if terminal else 'FIRST', 0.02)
  with progress.waiting('training'):
    while stream.getvalue().count('training: 0 s …') < 2:
      time.sleep(0.01)
  monkeypatch.undo()
  monkeypatch.setattr(sys, 'stderr', io.StringIO())
  with progress.waiting('training'):
    pass
  assert sys.stderr.getvalue() == ''


def test_quiet_says_nothing(capsys, monkeypatch):
  monkeypatch.setattr(progress, '_quiet', False)
  progress.be_quiet(True)
  progress.say('a line')
  for _ in Bar(range(3), desc='a bar'):
    pass
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize('stream', [Terminal, io.StringIO])
def test_lines_are_whole(stream, monkeypatch):
  monkeypatch.setattr(sys, 'stderr', stream())
  for _ in Bar(range(3), desc='jobs', ncols=80):
    pass
  assert sys.stderr.getvalue().endswith('\n')
