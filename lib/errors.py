# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can mend: the one exception for bad input, and what a system refuses."""

import errno
import os
import re

MENDABLE = (
  errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
)  # fmt: skip


class InputError(Exception):
  """Bad input: one sentence that says what was wrong and what would be right.

  Not a ValueError, which libraries catch and rewrite.

  Raised for configs, files, streams and token ids. The runner prints the sentence without a
  traceback and exits with code 2; every other exception is a bug and keeps its traceback.
  """


def refusal(error: BaseException) -> str | None:
  """What the system refused, such as 'No space left on device'; None if that is not the trouble.

  Looks for it in `error` and in what caused it. TensorStore gives the number in words alone.
  """
  seen: BaseException | None = error
  while seen is not None:
    found = re.search(r'os.error\D{1,8}(\d+)', str(seen), re.IGNORECASE)
    number = seen.errno if isinstance(seen, OSError) else int(found[1]) if found else None
    if number in MENDABLE:
      return os.strerror(number)
    seen = seen.__cause__ or seen.__context__
  return None
