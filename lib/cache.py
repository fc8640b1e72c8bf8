# SPDX-License-Identifier: Apache-2.0
"""The cache folder: files that can be made again and are kept between runs."""

import os
import pathlib


def folder(name: str) -> pathlib.Path:
  """`$XDG_CACHE_HOME/anytoken/NAME`, by default below `~/.cache`; it need not exist yet."""
  cache = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(cache) / 'anytoken' / name
