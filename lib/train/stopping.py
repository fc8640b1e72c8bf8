# SPDX-License-Identifier: Apache-2.0
"""How a run is asked to stop: SIGTERM, noted and answered between steps."""

import signal
from collections.abc import Callable
from typing import Any

import jax

from lib.parallel import processes


class Stopped(BaseException):
  """The run was asked to stop (SIGTERM); its state is saved and the same command goes on.

  Like KeyboardInterrupt, it is no Exception, so that no handler of errors takes it for one.
  """


class _BrokenOff(BaseException):
  """SIGTERM came in a block that it may end."""


class Sigterm:
  """Notes SIGTERM, so that the loop can finish its step; as a context it has the signal.

  It comes to several processes at different moments: they stop where JAX lets all of them stop.
  """

  def __init__(self) -> None:
    self.came, self._breaks, self._alone = False, False, jax.process_count() == 1

  def __enter__(self) -> 'Sigterm':
    if self._alone:
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *_: Any) -> None:
    if self._alone:
      signal.signal(signal.SIGTERM, self._before)

  def _note(self, *_: Any) -> None:
    self.came = True
    if self._breaks:
      self._breaks = False
      raise _BrokenOff

  def stops(self, step: int) -> bool:
    """Whether the run is to stop before this step; to be asked at every step."""
    self.came = self.came or processes.stopping(step)
    return self.came

  def undisturbed(self, work: Callable[[], None]) -> bool:
    """Does work that SIGTERM breaks off at once, where no other process waits for its end.

    Returns:
      Whether it was done.
    """
    if self.came:
      return False
    try:
      self._breaks = self._alone
      work()
      self._breaks = False  # in the try, for SIGTERM may come before this line
    except _BrokenOff:
      return False
    finally:
      self._breaks = False
    return True
