# SPDX-License-Identifier: Apache-2.0
"""The command line of a recipe, read before anything that takes seconds to import.

So `--help` and errors about scales, tables and fields are printed at once.
"""

import importlib
import os
import pathlib
import sys
from collections.abc import Sequence

from absl import flags  # `app` defines the flags of absl
from ml_collections import config_flags

from configs.common import SCALES
from lib.errors import InputError

CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'
FLAGS = ('config', 'workdir', 'quiet', 'distributed')
HELP = {'--help', '-help', '-h', '-?', '--helpshort', '--helpfull'}


def main(name: str) -> None:
  """Runs the recipe `experiments.NAME.recipe` from the command line, and exits as `runner.main`."""
  if HELP.intersection(sys.argv[1:]):
    print(help_text(name))
    return
  try:
    parse(name)
  except (InputError, flags.Error) as error:
    print(f'{name}: {error}', file=sys.stderr)
    sys.exit(2)
  recipe = importlib.import_module(f'experiments.{name}.recipe').RECIPE
  runner = importlib.import_module('experiments.runner')
  runner.main(recipe)


def parse(name: str) -> None:
  """Defines the flags of the recipe `name` and reads `sys.argv`, unless that has been done.

  Raises:
    InputError: no such config, scale, table or field, or an argument that is not a flag.
    absl.flags.Error: another flag is unknown or has a value of the wrong kind.
  """
  if 'config' in flags.FLAGS:
    return
  sys.argv = [*sys.argv[:1], *resolved(sys.argv[1:])]
  try:  # ml_collections reads overrides of the config as soon as it is defined
    define_flags(name)
    rest = flags.FLAGS(sys.argv)
    flags.FLAGS.config.lock()  # a config file that is not there shows only when it is used
  except (AttributeError, KeyError) as error:
    if "'get_config'" in str(error):
      raise InputError('--config names a file without get_config; give FILE.py:SCALE.') from error
    # The message is the repr of another: 'seedz'\\nDid you mean "seed" instead of "seedz"?, or it
    # ends with: Attempting to lookup: seed.x
    words = str(error).strip('"\'').replace("\\'", '').replace('\\n', '. ')
    words = words.rpartition('Attempting to lookup: ')[2]
    raise InputError(f'the config has no field {words}') from error
  except (SyntaxError, UnicodeDecodeError) as error:
    raise InputError(f'--config is not a Python file ({error}); give FILE.py:SCALE.') from error
  except OSError as error:
    raise InputError('there is no such config; give --config=FILE.py:SCALE.') from error
  if len(rest) > 1:
    raise InputError(f'argument {rest[1]!r} is not a flag; flags look like --workdir=DIR.')


def define_flags(name: str) -> None:
  """The flags of every recipe."""
  config_flags.DEFINE_config_file(
    'config',
    f'{CONFIGS / name}.py:cpu',
    'NAME:SCALE, NAME:SCALE,tables=A+B, or FILE.py:SCALE; --config.FIELD=VALUE changes a field.',
    lock_config=True,
  )
  flags.DEFINE_string('workdir', f'runs/{name}', 'Folder for everything this run writes.')
  flags.DEFINE_bool('quiet', False, 'Print nothing but results and errors.')
  flags.DEFINE_bool(
    'distributed',
    'JAX_COORDINATOR_ADDRESS' in os.environ,
    'This is one of several processes that share one workdir (docs/pod.md).',
  )


def configs() -> list[str]:
  """Names of the built-in configs."""
  return sorted(p.stem for p in CONFIGS.glob('*.py') if 'def get_config(' in p.read_text())


def config_file(value: str) -> str:
  """FILE:SCALE of a value of --config, where FILE may be the name of a built-in config.

  Raises:
    InputError: there is no such file, and no built-in config of this name.
  """
  place, colon, rest = value.partition(':')
  if pathlib.Path(place).is_file():
    return value
  name = place.removeprefix('configs/').removesuffix('.py')
  if name not in configs():
    raise InputError(
      f'there is no config {place!r}: --config is NAME:SCALE with a NAME of '
      f'{", ".join(configs())}, or FILE.py:SCALE.'
    )
  return f'{CONFIGS / name}.py{colon}{rest}'


def resolved(arguments: Sequence[str]) -> list[str]:
  """The arguments, with --config replaced by the path of an existing file."""
  found: list[str] = []
  for argument in arguments:
    flag, equals, value = argument.partition('=')
    if flag in ('--config', '-config') and equals:
      argument = f'{flag}={config_file(value)}'
    elif found and found[-1] in ('--config', '-config'):
      argument = config_file(argument)
    found.append(argument)
  return found


def help_text(name: str) -> str:
  """What `--help` shows: the claim, the scales and tables, the flags, and examples."""
  config = importlib.import_module(f'configs.{name}')
  define_flags(name)
  about, _, _ = str(config.__doc__).partition('\n\n  python -m')
  command = f'python -m experiments.{name}'
  prompt = ['  --config.prompt: A text that the trained model continues or deciphers.']
  if 'prompt' not in config.get_config():
    prompt = []
  lines = [
    about,
    '',
    f'Usage: {command} --config={name}:SCALE[,tables=A+B] --workdir=DIR [--config.FIELD=VALUE …]',
    '',
    f'Scales: {", ".join(SCALES)} (default: cpu).',
    f'Tables: {", ".join(config.TABLES)} (default: all).',
    '',
    'Flags:',
    *(f'  --{flag}: {flags.FLAGS[flag].help}' for flag in FLAGS),
    *prompt,
    '',
    'Examples:',
    f'  {command} --config={name}:smoke --workdir=/tmp/{name}',
    f'  {command} --config={name}:cpu,tables={config.TABLES[0]} --config.seed=1',
    '',
    f'Fields of the config and their meaning: configs/{name}.py and docs/config.md.',
  ]
  return '\n'.join(lines)
