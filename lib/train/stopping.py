# SPDX-License-Identifier: Apache-2.0
"""How a training run is asked to stop: SIGTERM or Ctrl-C, noted and answered between steps."""

import contextlib
import signal
from collections.abc import Callable
from typing import Any

import jax

from lib import signals
from lib.parallel import processes


class Stopped(BaseException):
  """The run was asked to stop; its state is saved, and the same command resumes it.

  Like KeyboardInterrupt, it is no Exception, so that no handler of errors takes it for one.

  Attributes:
    code: the exit code by convention: 128 and the number of the signal.
  """

  def __init__(self, words: str, number: int):
    super().__init__(words)
    self.code = 128 + number


class _BrokenOff(BaseException):
  """A signal came in a block that it may end."""


class StopSignals:
  """Notes the first signal, so that the loop can finish its step; as a context it has the signals.

  It comes to several processes at different moments: they stop where JAX lets all of them stop.
  There Ctrl-C ends each at once.
  """

  def __init__(self) -> None:
    self.number, self._breaks, self._alone = 0, False, jax.process_count() == 1
    self._held = contextlib.ExitStack()

  def __enter__(self) -> 'StopSignals':
    if self._alone:
      self._held.enter_context(signals.finishing())
      for number in signals.NAMES:
        self._held.callback(signal.signal, number, signal.signal(number, self._note))
    return self

  def __exit__(self, *_: Any) -> None:
    self._held.close()

  def _note(self, number: int, _: Any) -> None:
    if self.number:  # the second: as if nobody had the signals
      self._held.close()
      signal.raise_signal(number)
    self.number = number
    if self._breaks:
      self._breaks = False
      raise _BrokenOff

  @property
  def name(self) -> str:
    """Of the signal that came."""
    return signals.NAMES[self.number]

  def stops(self, step: int) -> bool:
    """Whether the run is to stop before this step; to be asked at every step."""
    if not self.number and processes.stopping(step):
      self.number = signal.SIGTERM
    return bool(self.number)

  def undisturbed(self, work: Callable[[], None]) -> bool:
    """Does work that a signal breaks off at once, where no other process waits for its end.

    Returns:
      Whether it was done.
    """
    if self.number:
      return False
    try:
      self._breaks = self._alone
      work()
      self._breaks = False  # in the try, for a signal may come before this line
    except _BrokenOff:
      return False
    finally:
      self._breaks = False
    return True
