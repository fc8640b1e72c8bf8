# SPDX-License-Identifier: Apache-2.0
"""Progress of a long job on stderr: a bar in a terminal, elsewhere an occasional line."""

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
GROWTH, LONGEST = (
  1.5,
  60.0,
)  # factor by which each wait is longer than the one before, and the longest wait in seconds
SILENT = 3.0  # seconds after which a terminal shows what is still under way
FORMAT = '{desc}: {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{remaining} left{postfix}]'
tqdm.monitor_interval = 0  # no thread that redraws bars
_quiet = False


def be_quiet(quiet: bool) -> None:
  """Whether from now on only results and errors are printed."""
  global _quiet
  _quiet = quiet


def say(line: str) -> None:
  """Says a line."""
  if not _quiet:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def waiting(words: str) -> Iterator[None]:
  """A block without a measure of progress: prints the time it has taken, if that is long."""
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
  """Silences what libraries report about absent TPUs, and messages of orbax that it also raises."""
  absl_logging.set_verbosity(absl_logging.ERROR)
  absl_logging.get_absl_logger().addFilter(lambda record: 'orbax' not in record.pathname)
  logging.getLogger('jax._src.xla_bridge').setLevel(logging.ERROR)


class Bar(tqdm):
  """A bar with the time left; `phase` names slow work between steps.

  If stderr is not a terminal, it prints a line at the end, and earlier lines in a long job.
  """

  mininterval: float

  def __init__(self, *args: Any, disable: bool = False, **options: Any):
    self.lines, self.begun = not sys.stderr.isatty(), 0
    if self.lines:
      options |= {'mininterval': FIRST, 'delay': FIRST, 'leave': False}
    options = {'mininterval': 0.5, 'dynamic_ncols': True, 'smoothing': 0} | options
    form = FORMAT.replace('|{bar:10}|', '') if self.lines else FORMAT
    super().__init__(*args, bar_format=form, disable=disable or _quiet, **options)
    if (
      not self.disable
    ):  # tqdm uses wall-clock time, and freezes if the clock is set back; use a monotonic clock
      self._time = time.monotonic
      self.restart()

  def begin(self, done: int) -> None:
    """Continues from the progress of an earlier call; prints nothing if that call finished."""
    self.n = self.begun = done
    if done >= (self.total or 0):
      self.leave = False
    self.restart()

  def restart(self) -> None:
    """Excludes the work so far from the rate, such as a first step with its compilation."""
    if not self.disable:
      self.initial = self.n
      self.start_t = self.last_print_t = time.monotonic()

  def phase(self, words: str) -> None:
    """Shows what is being done now, such as 'compiling'."""
    if not self.disable and not self.lines:
      self.set_postfix_str(f'{words} …')

  def close(self) -> None:
    """Ends the bar; without a bar, prints a last line."""
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
