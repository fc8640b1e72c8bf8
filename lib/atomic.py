# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all."""

import contextlib
import os
import pathlib


def write(path: str | os.PathLike, content: bytes | str) -> None:
  """Writes a file so that a reader, or a kill at any moment, finds the old content or the new.

  Text is written as UTF-8. A failed write leaves nothing behind.
  """
  path = pathlib.Path(path)
  data = content.encode() if isinstance(content, str) else content
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  try:
    with partial.open('wb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
  finally:
    with contextlib.suppress(FileNotFoundError):
      partial.unlink()
