# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and Ctrl-C end a command at once, except where it has something to finish first.

Python runs the handlers of signals in the main thread, between its own instructions: not while a
library compiles or trains, and an exception raised there can be lost. So a thread waits for
signals instead, and ends the process; all files are written so that nothing is lost by that.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

NAMES: dict[int, str] = {signal.SIGTERM: 'SIGTERM', signal.SIGINT: 'Ctrl-C'}
_listening = threading.Event()
_finishing = threading.Event()  # set where the first signal is answered by the main thread
_heard = threading.Event()  # set when the first signal came


def listen(name: str) -> None:
  """From now on SIGTERM and Ctrl-C end this process, command `name`, with code 143 or 130."""
  if _listening.is_set():
    return
  _listening.set()
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
  for number in NAMES:
    signal.signal(number, lambda *_: None)  # the waiting thread still gets the signal
  threading.Thread(target=_watch, args=(name, reader), daemon=True).start()


def listen_at_start(package: str) -> None:
  """Listens if Python is about to run this package as a command: before its slow imports."""
  if sys.argv[:1] == ['-m']:  # so it is while Python looks for the module to run
    listen(package.rpartition('.')[2])


@contextlib.contextmanager
def finishing() -> Iterator[None]:
  """A block in which the first signal is left to handlers; the second ends the process."""
  _heard.clear()
  _finishing.set()
  try:
    yield
  finally:
    _finishing.clear()


def _watch(name: str, reader: int) -> None:
  while True:
    for number in os.read(reader, 64):
      if number not in NAMES:
        continue
      if _finishing.is_set() and not _heard.is_set():
        _heard.set()
        continue
      said = f'{name}: stopped by {NAMES[number]}; the same command resumes from the last save.\n'
      os.write(2, said.encode())
      os._exit(128 + number)
