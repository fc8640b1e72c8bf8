# SPDX-License-Identifier: Apache-2.0
"""What a long job says of itself on stderr: a bar in a terminal, elsewhere a line now and then."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from absl import logging as absl_logging
from tqdm import tqdm

FIRST = 4.0  # seconds to the first line, where stderr is no terminal; later ones come less often
GROWTH, LONGEST = 1.5, 60.0  # each wait is that much longer than the one before, up to seconds
SILENT = 3.0  # seconds after which a terminal shows what is still under way
FORMAT = '{desc}: {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{remaining} left{postfix}]'
tqdm.monitor_interval = 0  # no thread that redraws bars
_quiet = False


def be_quiet(quiet: bool) -> None:
  """Whether from now on nothing is said but results and errors."""
  global _quiet
  _quiet = quiet


def say(line: str) -> None:
  """Says a line."""
  if not _quiet:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def waiting(words: str) -> Iterator[None]:
  """A block that cannot say how far it is: the time that it has taken, where that is long."""
  done = threading.Event()

  def watch() -> None:
    terminal = sys.stderr.isatty()
    begin, pause = time.monotonic(), SILENT if terminal else FIRST
    bar = None
    while not done.wait(pause):
      seconds = time.monotonic() - begin
      if not terminal:
        say(f'{words}: {seconds:.0f} s …')
        pause = _longer(pause)
        continue
      if bar is None:  # a bar without a total has no truth value
        bar = tqdm(file=sys.stderr, bar_format='{desc}', leave=False)
      bar.set_description_str(f'{words}: {seconds:.0f} s …')
    if bar is not None:
      bar.close()

  thread = threading.Thread(target=watch, daemon=True)
  if not _quiet:
    thread.start()
  try:
    yield
  finally:
    done.set()
    if thread.ident:
      thread.join()


def silence_libraries() -> None:
  """Keeps away what libraries report of TPUs that are not there, and what orbax also raises."""
  absl_logging.set_verbosity(absl_logging.ERROR)
  absl_logging.get_absl_logger().addFilter(lambda record: 'orbax' not in record.pathname)
  logging.getLogger('jax._src.xla_bridge').setLevel(logging.ERROR)


class Bar(tqdm):
  """A bar with the time left; `phase` says what happens while it stands still.

  Where stderr is no terminal, it is a line at the end, and lines before where that is far off.
  """

  mininterval: float

  def __init__(self, *args: Any, disable: bool = False, **options: Any):
    self.lines, self.begun = not sys.stderr.isatty(), 0
    if self.lines:
      options |= {'mininterval': FIRST, 'delay': FIRST, 'leave': False}
    options = {'mininterval': 0.5, 'dynamic_ncols': True, 'smoothing': 0} | options
    form = FORMAT.replace('|{bar:10}|', '') if self.lines else FORMAT
    super().__init__(*args, bar_format=form, disable=disable or _quiet, **options)
    if not self.disable:  # tqdm reads the wall clock: set back an hour, it would stand for an hour
      self._time = time.monotonic
      self.restart()

  def begin(self, done: int) -> None:
    """Goes on from what an earlier call did; where that was all, nothing more is said."""
    self.n = self.begun = done
    if done >= (self.total or 0):
      self.leave = False
    self.restart()

  def restart(self) -> None:
    """Leaves out of the pace what was done so far, such as a first step with its compilation."""
    if not self.disable:
      self.initial = self.n
      self.start_t = self.last_print_t = time.monotonic()

  def phase(self, words: str) -> None:
    """Says what is done now that takes a while, such as 'compiling'."""
    if not self.disable and not self.lines:
      self.set_postfix_str(f'{words} …')

  def close(self) -> None:
    """Ends the bar; where it was none, says in a line that all is done."""
    if not self.disable and self.lines and self.begun < self.n == self.total:
      took = self.format_interval(time.monotonic() - self.start_t)
      print(f'{self.desc}: {self.n:,} in {took}{", " * bool(self.postfix)}{self.postfix or ""}',
            file=sys.stderr, flush=True)  # fmt: skip
    super().close()

  def display(self, *args: Any, **options: Any) -> None:
    """Draws the bar, or writes a line; the next one comes later."""
    super().display(*args, **options)
    if self.lines:
      self.mininterval = _longer(self.mininterval)

  def moveto(self, n: int) -> None:
    """Goes to the line of a bar below another; lines follow each other."""
    if not self.lines:
      super().moveto(n)

  @staticmethod
  def status_printer(file: Any) -> Any:
    """Draws over the bar before, or writes lines."""
    if file.isatty():
      return tqdm.status_printer(file)
    return lambda text: print(text.strip(), file=file, flush=True) if text.strip() else None


def _longer(pause: float) -> float:
  return min(GROWTH * pause, LONGEST)
