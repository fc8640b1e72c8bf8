# SPDX-License-Identifier: Apache-2.0
"""Eight CPU devices, no silent rank promotion, quick compilation, caches of the tests' own."""

import collections
import gc
import itertools
import os
import pathlib
import re
import resource
import sys

import jaxlib.version
import pytest

ROOT = pathlib.Path(__file__).parents[1]
RECIPES = [path.parent.name for path in ROOT.glob('experiments/*/__main__.py')]
RECIPE = re.compile(rf'test_({"|".join(RECIPES)})_')
CACHE = ROOT / '.cache'
# Without bytecode each of the many processes would spend six seconds on compiling its imports.
os.environ.pop('PYTHONDONTWRITEBYTECODE', None)
sys.dont_write_bytecode = False
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(CACHE / 'jax'))
os.environ.setdefault('XDG_CACHE_HOME', str(CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')
# Tests spend more on compiling than on running: without the code generator's slow passes, and with
# its plain form of fusions in one piece, compiling takes a third of the time. XLA's passes stay.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', 'true')
QUICK = '--xla_cpu_parallel_codegen_split_count=1'
if jaxlib.version.__version_info__ < (0, 11):  # from 0.11.2 on XLA ends a process that says this
  QUICK += ' --xla_cpu_use_fusion_emitters=false'
os.environ['XLA_FLAGS'] = f'{QUICK} {os.environ.get("XLA_FLAGS", "")}'

from lib import memory  # noqa: E402

memory.keep_freed()  # before JAX starts its threads

import jax  # noqa: E402 - after the environment is set

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')


def pytest_configure(config):
  config.option.loadscopereorder = False  # pytest-xdist would take files of many tests first


def pytest_collection_finish():
  """What was imported stays: without a look at it at each collection of garbage, 5 % is saved."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(100_000, 20, 100)


def pytest_collection_modifyitems(items):
  """Whole runs of a recipe come first, then large files: what is long would leave cores idle."""
  items.sort(key=lambda item: (not item.path.stem.endswith('_run'), -item.path.stat().st_size))


def _spent():
  """Processor seconds of this process and of those that it has waited for."""
  both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
  spent = sum(one.ru_utime + one.ru_stime for one in both)
  forked = sys.modules.get('tests.helpers.recipes')
  return spent + sum(forked.core_seconds) if forked else spent


_last = _spent()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
  """Notes what a test, or its set-up, took: most of it may be in other processes."""
  global _last
  report = yield
  now = _spent()
  report.user_properties, _last = [*report.user_properties, ('core_seconds', now - _last)], now
  return report


def pytest_terminal_summary(terminalreporter):
  """Prints core-seconds by recipe and by room of the tests."""
  spent = collections.Counter()
  reports = itertools.chain(*terminalreporter.stats.values())
  for report in (one for one in reports if hasattr(one, 'user_properties')):
    *_, room, file = ('', *report.nodeid.partition('::')[0].split('/'))
    recipe = RECIPE.match(file) if room == 'experiments' else None
    spent[recipe[1] if recipe else room] += dict(report.user_properties).get('core_seconds', 0.0)
  found = ', '.join(f'{name} {seconds:.0f}' for name, seconds in spent.most_common())
  terminalreporter.write_line(f'core-seconds: {sum(spent.values()):.0f} ({found})')
