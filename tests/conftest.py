# SPDX-License-Identifier: Apache-2.0
"""Eight CPU devices, no silent rank promotion, quick compilation, caches of the tests' own."""

import os
import pathlib

import jaxlib.version

CACHE = pathlib.Path(__file__).parents[1] / '.cache'
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


def pytest_collection_modifyitems(items):
  """Whole runs of a recipe come first: one that came last would leave the other cores idle."""
  items.sort(key=lambda item: not item.path.stem.endswith('_run'))
