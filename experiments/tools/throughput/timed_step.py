# SPDX-License-Identifier: Apache-2.0
"""Times the training step of a recipe, and takes it apart."""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.tools import steps
from experiments.tools.timing import time_calls
from lib.profiling import trace
from lib.report.results import Row, name
from pallas_kernels.chips import chip_here

CAPTIONS = {
  'step': 'The training step of the recipe, on random tokens that are on the device. '
  'mflop_a_token and of_peak count matrix products, and attention over the pairs of tokens that '
  'the mask lets through (lib/train/state.py); steps timed before December 2026 were counted over '
  'all pairs. planned_gb: '
  'state, batch, temporaries and program of one device, by the compiler. compile_s: XLA alone, '
  'nothing kept from before. first_step: from the start of a process to the end of its first '
  'step, with an empty compilation cache and with a warm one.',
  'parts': 'Shares of the time of all ops of the step, by the part of the model that they are of: '
  'forward, backward or neither; and how much of these is in ops that multiply matrices.',
  'ops': 'The same by single op: XLA’s name of it, and the line of the model that gave it.',
}
# The first expression that matches an op's path gives its part of the model.
PARTS = (
  (r'embedding\.(sample_rows|encode)', 'embedding'),
  (r'embedding\.token_loss', 'LM head and loss'),
  (r'_norm/', 'norms'),
  (r'_attention/(query|key|value|out)/', 'projections of attention'),
  (r'_attention/|t5', 'attention'),
  (r'_mlp/', 'MLP'),
  (r'jvp\(', 'between the parts'),  # residual sums, and what is kept for the backward pass
  (r'.', 'update'),
  (r'^$', 'copies by the compiler'),
)
TOP = 12  # single ops that are shown
WARM_UP = 2  # steps
ROUNDS = 3
TRACES = 3


def table(
  step: steps.Ready, row: Mapping[str, Any], dtype: str, repeats: int, first: Mapping[str, float]
) -> list[Row]:
  """Rows of all tables of a step, named `row`.

  Args:
    step: which is run.
    row: its name.
    dtype: in which it multiplies.
    repeats: steps of a round that is timed.
    first: 'cold' and 'warm' -> seconds to a first step.
  """
  title = name(**row)
  print(
    f'{title}: compiled in {step.seconds:.0f} s; next {WARM_UP + ROUNDS * repeats} steps',
    flush=True,
  )
  step.pace(WARM_UP)
  took = statistics.median(step.pace(repeats) for _ in range(ROUNDS))
  tokens = step.batch['targets'].size
  peak, whose = peak_rate(dtype)
  rate = step.account.flops / took / len(jax.devices())
  print(
    f'{title}: {tokens / took:,.0f} tokens/s, {rate / peak:.1%} of the peak; next {TRACES} traces',
    flush=True,
  )
  of = lambda column, value, unit, note='': Row('step', row, column, value, unit=unit, note=note)
  rows = [
    of('tokens_per_s', tokens / took, 'tokens/s', f'median of {ROUNDS} rounds of {repeats} steps'),
    of('step_ms', took * 1e3, 'ms'),
    of('tokens_a_step', tokens, 'tokens'),
    of('mflop_a_token', step.account.flops / tokens / 1e6, 'MFLOP'),
    of('of_peak', rate / peak, 'ratio', whose),
    of('planned_gb', step.account.bytes / 1e9, 'GB'),
    of('compile_s', step.account.seconds, 's'),
    *(of(f'first_step_{kind}_s', seconds, 's') for kind, seconds in first.items()),
  ]
  if used := (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use'):
    rows.append(of('peak_gb', used / 1e9, 'GB', 'peak_gb: most that the device held'))
  return rows + taken_apart(step, row)


def taken_apart(step: steps.Ready, row: Mapping[str, Any]) -> list[Row]:
  """The tables `parts` and `ops`, from the trace of the fastest of some steps.

  The profiler takes memory too, and then a step on a CPU meets pages that it must touch for the
  first time, which makes its forward pass several times as long.
  """
  traces = []
  for _ in range(TRACES):
    with trace.traced() as spent:
      seconds, _ = step.run()
    traces.append((seconds, spent))
  _, spent = min(traces, key=lambda pair: pair[0])
  known = trace.ops(step.compiled.as_text() or '')
  nothing = trace.Op('', False)
  total = sum(spent.values())
  parts: dict[str, dict[str, float]] = {part: {} for _, part in PARTS}
  for op, seconds in spent.items():
    found = known.get(op, nothing)
    shares = parts[part_of(found.path)]
    for column in (direction(found.path), 'products' if found.product else ''):
      shares[column] = shares.get(column, 0.0) + seconds / total
  rows = [
    Row('parts', {**row, 'part': part}, column, shares.get(column, 0.0), unit='of the time')
    for part, shares in parts.items()
    if shares
    for column in ('forward', 'backward', 'neither', 'products')
  ]
  longest = sorted(spent, key=lambda op: -spent[op])[:TOP]
  return rows + [
    Row('ops', {**row, 'op': op, 'of': short(known.get(op, nothing).path)}, 'share',
        spent[op] / total, unit='of the time')
    for op in longest
  ]  # fmt: skip


def part_of(path: str) -> str:
  """The part of the model that an op of this path is from."""
  return next(part for pattern, part in PARTS if re.search(pattern, path))


def direction(path: str) -> str:
  """Whether an op is of the forward pass, of the backward pass or of neither."""
  if 'transpose(' in path:
    return 'backward'
  return 'forward' if 'jvp(' in path else 'neither'


def short(path: str) -> str:
  """A path's direction and last names, without loops and calls."""
  names = [part for part in path.split('/') if not re.match(r'while|body|closed_call|jit\(', part)]
  return f'{direction(path)}: {"/".join(names[-3:])}' if path else 'the compiler'


def peak_rate(dtype: str) -> tuple[float, str]:
  """Peak operations per second of one device, and the source of the figure.

  That of a CPU is measured: the best of five products of two square matrices.
  """
  if chip := chip_here():
    return chip.flops, f'of_peak: of the published {chip.flops / 1e12:,.0f} TFLOP/s in bfloat16'
  size = 2048
  matrix = jnp.ones((size, size), dtype)
  product = jax.jit(lambda a, b: a @ b).lower(matrix, matrix).compile()
  best = 2 * size**3 / min(time_calls(lambda: product(matrix, matrix), 5).wall)
  return best, (
    f'of_peak: of {best / 1e9:,.0f} GFLOP/s, here the best of five products of {dtype} matrices '
    f'{size:,}²'
  )  # fmt: skip


def first_steps(command: Sequence[str]) -> dict[str, float]:
  """Seconds of a process up to the end of its first step: with an empty cache, then again.

  Args:
    command: arguments of Python that come to a first step, and then print a line.

  Raises:
    RuntimeError: the process failed.
  """
  found = {}
  with tempfile.TemporaryDirectory() as folder:
    environment = os.environ | {'XDG_CACHE_HOME': folder}
    environment.pop('JAX_COMPILATION_CACHE_DIR', None)
    for kind in ('cold', 'warm'):
      begin = time.perf_counter()
      with subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True
      ) as process:
        assert process.stdout
        process.stdout.readline()
        found[kind] = time.perf_counter() - begin
      if process.returncode:
        raise RuntimeError(f'python {" ".join(command)} ended with {process.returncode}')
  return found
