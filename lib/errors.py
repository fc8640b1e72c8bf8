# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can correct: the exception for bad input, and errors of the system."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator

MENDABLE = (
  errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
  errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG,
)  # fmt: skip


class InputError(Exception):
  """Bad input: one sentence that says what was wrong and what would be right.

  Not a ValueError, which libraries catch and rewrite.

  Raised for configs, files, streams and token ids. The runner prints the sentence without a
  traceback and exits with code 2; every other exception is a bug and keeps its traceback.
  """


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
  """Turns any error of a library on a file, including Rust panics, into an InputError 'WHAT:
  reason'.
  """
  try:
    yield
  except BaseException as error:
    if isinstance(error, Exception) or type(error).__name__ == 'PanicException':
      reason = str(error).split('\n')[0][:300] or type(error).__name__
      raise InputError(f'{what}: {reason}') from error
    raise


def refusal(error: BaseException) -> str | None:
  """The error of the system, such as 'No space left on device'; None for any other error.

  It is searched in `error` and in its causes. TensorStore gives the number only in the text.
  """
  seen: BaseException | None = error
  while seen is not None:
    found = re.search(r'os.error\D{1,8}(\d+)', str(seen), re.IGNORECASE)
    number = seen.errno if isinstance(seen, OSError) else int(found[1]) if found else None
    if number in MENDABLE:
      return os.strerror(number)
    seen = seen.__cause__ or seen.__context__
  return None
