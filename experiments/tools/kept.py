# SPDX-License-Identifier: Apache-2.0
"""A page made of sections, each with its title and written by one run of a command."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from lib import atomic
from lib.errors import InputError
from lib.report import results


def keep(
  folder: pathlib.Path,
  name: str,
  head: str,
  shown: Callable[[str, Mapping[str, Any]], str],
  title: str,
  found: Mapping[str, Any],
) -> None:
  """Puts a section into FOLDER/NAME.json and NAME.md, in the place of the one with its title.

  Args:
    folder: made if absent.
    name: of both files.
    head: beginning of the page.
    shown: (title, section) -> its part of the page, in Markdown.
    title: of the section.
    found: its content, as JSON.

  Raises:
    InputError: the folder cannot be written, or its JSON file is damaged.
  """
  path = folder / f'{name}.json'
  try:
    folder.mkdir(parents=True, exist_ok=True)
    sections = json.loads(path.read_text()) if path.exists() else {}
  except OSError as error:
    raise InputError(f'cannot write to {folder}: {error.strerror}') from error
  except ValueError as error:
    raise InputError(f'{path} is damaged ({error}): delete it, and measure again.') from error
  sections = dict(sorted((sections | {title: found}).items()))
  results.write_json(path, sections)
  page = [head, *(shown(*section) for section in sections.items())]
  atomic.write(folder / f'{name}.md', '\n'.join(page))
