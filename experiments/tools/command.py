# SPDX-License-Identifier: Apache-2.0
"""Start and end of a command with flags, and a description of the machine."""

import os
import pathlib
import platform
import sys
from collections.abc import Callable

from absl import app, flags

from experiments.command_line import HELP, resolved
from lib import errors, memory, progress
from lib.errors import InputError


def main(name: str, execute: Callable[..., None], more: bool = False) -> None:
  """Runs a command and exits: 0 done, 1 a fault, 2 bad input, with one sentence.

  With `more`, arguments that are no flags go to `execute`; otherwise they are bad input.
  """
  if help_shown():
    return
  memory.keep_freed()
  progress.silence_libraries()
  try:
    sys.argv = [*sys.argv[:1], *resolved(sys.argv[1:])]
    app.run(lambda rest: execute(*rest[1:]), flags_parser=flags.FLAGS if more else _parse_flags)
  except (InputError, flags.Error) as error:
    sys.exit(_say(name, str(error)))
  except MemoryError as error:
    sys.exit(_say(name, f'no memory is left ({error}): choose smaller sizes.'))
  except Exception as error:
    if (why := errors.refusal(error)) is None:
      raise
    sys.exit(
      _say(name, f'cannot read or write {getattr(error, "filename", None) or "a file"}: {why}.')
    )


def _say(name: str, words: str) -> int:
  print(f'{name}: {words}', file=sys.stderr)
  return 2


def help_shown() -> bool:
  """Whether `--help` was asked for; prints what the command does, and its flags."""
  if not HELP.intersection(sys.argv[1:]):
    return False
  print(sys.modules['__main__'].__doc__)
  for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0]):
    print(f'  --{flag.name}: {flag.help} Default: {flag.default_unparsed!r}.')
  return True


def _parse_flags(argv: list[str]) -> list[str]:
  rest = flags.FLAGS(argv)
  if len(rest) > 1:
    raise InputError(f'argument {rest[1]!r} is not a flag; flags look like --out=DIR.')
  return rest


def machine() -> str:
  """The processor, its cores and their load, for the head of a table of times."""
  return f'{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end'


def _processor() -> str:
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return platform.processor() or platform.machine()
  names = [line.partition(': ')[2] for line in lines if line.startswith('model name')]
  return names[0] if names else platform.machine()
