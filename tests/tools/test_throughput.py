# SPDX-License-Identifier: Apache-2.0
"""The throughput command: traces are read rightly, tables add up, PyTorch's decoder is ours."""

import importlib.util
import json
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from experiments.tools.throughput import peer, timed_step
from lib.embeddings.learned import Learned
from lib.models.decoder import Decoder, LanguageModel
from lib.profiling import trace
from lib.report.results import Row

ROOT = pathlib.Path(__file__).parents[2]


def event(start, duration, op=None):
  stats = [('hlo_op', op), ('hlo_module', 'jit_step')] if op else [('id', 1)]
  return types.SimpleNamespace(name='', start_ns=start, duration_ns=duration, stats=stats)


def mark(start, kind, **stats):
  name = f'ThreadpoolListener::{kind}'
  return types.SimpleNamespace(name=name, start_ns=start, duration_ns=0, stats=list(stats.items()))


def plane(name, *lines):
  lines = [types.SimpleNamespace(name='', events=events) for events in lines]
  return types.SimpleNamespace(name=name, lines=lines)


def test_an_op_counts_without_those_within_it():
  first = [event(10, 30, 'dot.1'), event(0, 100, 'while.2'), event(5, 90), event(50, 20, 'dot.1')]
  second = [event(12, 7, 'add.3'), event(19, 5, 'add.3'), event(30, 10)]
  found = trace.seconds([plane('/host:CPU', first, second), plane('Task Environment')])
  # Of the loop's 100 ns, 30 and 20 are the product's; what is of no op does not count.
  assert found == pytest.approx({'while.2': 50e-9, 'dot.1': 50e-9, 'add.3': 12e-9})


def test_tasks_count_as_of_the_op_that_handed_them_over():
  # The product hands over 7, which hands over 8; in 7 the thread begins an op of its own.
  first = [event(0, 10, 'dot.1'), mark(2, 'Record', _p=7), mark(50, 'Record', _p=9)]
  second = [mark(20, 'StartRegion', _c=7), event(24, 4, 'add.3'), mark(25, 'Record', _p=6),
            mark(30, 'Record', _p=8), mark(31, 'StopRegion')]  # fmt: skip
  third = [
    mark(start + length, kind, **stats)
    for start, length, task in ((40, 5, 8), (51, 9, 9), (61, 3, 6))
    for kind, length, stats in (('StartRegion', 0, {'_c': task}), ('StopRegion', length, {}))
  ]
  found = trace.seconds([plane('/host:CPU', first, second, third)])
  # Of task 7 seven are left beside the op, task 8 took five; 6 was the op's, and 9 is nobody's.
  assert found == pytest.approx({'dot.1': 22e-9, 'add.3': 7e-9})


def test_what_a_device_does_for_no_op_counts_as_such_and_the_host_not_at_all():
  host = plane('/host:CPU', [event(0, 1000, 'dot.1')])
  device = plane('/device:GPU:0', [event(0, 6, 'dot.1'), event(6, 4)], [event(0, 50), event(50, 9)])
  assert trace.seconds([host, device]) == pytest.approx({'dot.1': 6e-9, '': 4e-9})


HLO = """HloModule jit_step

%fused (a: f32[4], b: f32[4]) -> f32[4] {
  ROOT %dot.5 = f32[4] dot(%a, %b), metadata={op_name="jit(step)/jvp(M)/blocks._mlp/up/dot_general"}
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %fusion.7 = f32[4]{0} fusion(%a, %a), kind=kOutput, calls=%fused, metadata={op_name="jit(step)/x"}
  %copy.1 = f32[4]{0} copy(%a)
  ROOT %called = f32[4] custom-call(%a), custom_call_target="__cublas$gemm", metadata={op_name="y"}
}
"""


def test_ops_have_their_line_of_the_model_and_whether_they_multiply():
  found = trace.ops(HLO)
  assert found == {
    'dot.5': trace.Op('jit(step)/jvp(M)/blocks._mlp/up/dot_general', True),
    'fusion.7': trace.Op('jit(step)/x', True),
    'copy.1': trace.Op('', False),
    'called': trace.Op('y', True),
  }


def test_a_real_trace_names_the_ops_of_the_program():
  matrix = jnp.ones((64, 64))
  step = jax.jit(lambda a: jnp.tanh(a @ a)).lower(matrix).compile()
  with trace.traced() as spent:
    jax.block_until_ready(step(matrix))
  known = trace.ops(step.as_text())
  assert spent.keys() <= known.keys()
  assert any(known[op].product for op in spent)
  assert all(0 < seconds < 1 for seconds in spent.values())


@pytest.mark.parametrize(
  ('path', 'part', 'way', 'said'),
  [
    ('jit(step)/jvp(M)/M.hidden/decoder/while/body/closed_call/blocks/blocks._mlp/up/dot_general',
     'MLP', 'forward', 'forward: blocks._mlp/up/dot_general'),
    ('jit(step)/transpose(jvp(M))/M.hidden/decoder/while/body/blocks/attention_norm/mul',
     'norms', 'backward', 'backward: blocks/attention_norm/mul'),
    ('jit(step)/jvp(M)/decoder/blocks/blocks._attention/query/dot_general',
     'projections of attention', 'forward', 'forward: blocks._attention/query/dot_general'),
    ('jit(step)/jvp(M)/decoder/blocks/blocks._attention/bhts,bshk->bhtk/dot_general',
     'attention', 'forward', 'forward: blocks._attention/bhts,bshk->bhtk/dot_general'),
    ('jit(step)/mul', 'update', 'neither', 'neither: mul'),
    ('', 'copies by the compiler', 'neither', 'the compiler'),
  ],
)  # fmt: skip
def test_paths_tell_the_part_and_the_pass(path, part, way, said):
  assert timed_step.part_of(path) == part
  assert timed_step.direction(path) == way
  assert timed_step.short(path) == said


def test_the_command_measures_a_recipe_and_keeps_other_sections(tmp_path):
  (tmp_path / 'throughput.json').write_text('{}')
  command = [
    sys.executable, '-m', 'experiments.tools.throughput', f'--out={tmp_path}', '--repeats=2',
    '--first_step=left_out',
    f'--config={ROOT}/configs/equal_info.py:smoke',
  ]  # fmt: skip
  subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
  ((title, section),) = json.loads((tmp_path / 'throughput.json').read_text()).items()
  assert title == 'equal_info, smoke: m2/model=tiny,v=512, on cpu'
  rows = {(row['table'], row['row'], row['column']): row['measured'] for row in section['rows']}
  of = lambda column: rows['step', 'dtype=float32', column]
  assert of('tokens_a_step') == 8 * 64
  assert of('tokens_per_s') == pytest.approx(512e3 / of('step_ms'))
  assert 0 < of('of_peak') < 1
  parts = {key[1:]: value for key, value in rows.items() if key[0] == 'parts'}
  assert sum(value for key, value in parts.items() if key[1] != 'products') == pytest.approx(1)
  assert title in (tmp_path / 'throughput.md').read_text()


def test_the_first_step_of_a_process_is_timed_twice():
  found = timed_step.first_steps(['-c', 'print(1)'])
  assert list(found) == ['cold', 'warm']
  assert min(found.values()) > 0
  with pytest.raises(RuntimeError, match='ended with 3'):
    timed_step.first_steps(['-c', 'raise SystemExit(3)'])


def tiny(position, **options):
  return lambda dtype: LanguageModel(
    Learned(17, 16, tied=position == 'learned', init_std=0.5, dtype=dtype),
    Decoder(2, 16, 2, 32, position=position, dtype=dtype, **options),
  )  # fmt: skip


@pytest.mark.skipif(
  importlib.util.find_spec('torch') is None,
  reason='there is no PyTorch: see `make throughput`',
)
def test_the_decoder_in_pytorch_has_our_losses():
  t5 = tiny('t5', norm='rms', gated=True, activation='silu', init_std=None)
  cases = {'gpt2': peer.Case(tiny('learned', init_std=0.3), 4, 8, ('eager',)),
           't5': peer.Case(t5, 4, 8, ('eager',))}  # fmt: skip
  rows = peer.table(cases, 1)  # raises where losses differ
  assert {row.row for row in rows} == {
    f'model={model},dtype={dtype},way={way}'
    for model in cases for dtype in ('float32', 'bfloat16') for way in ('ours', 'eager')
  }  # fmt: skip


def test_ratios_have_their_spread_over_processes():
  ours = [
    Row('peer', {'way': 'ours'}, 'times_eager', value, unit='ratio') for value in (0.7, 0.9, 1.1)
  ]
  mean, lowest, highest = peer.over_runs(ours)
  assert (mean.measured, mean.n, mean.over) == (pytest.approx(0.9), '3', 'processes')
  assert mean.sem == pytest.approx(0.2 / 3**0.5)
  assert (lowest.column, lowest.measured) == ('times_eager_lowest', 0.7)
  assert (highest.column, highest.measured) == ('times_eager_highest', 1.1)
  absent = Row('peer', {'way': 'compiled'}, 'tokens_per_s', None, note=peer.NO_COMPILER)
  assert peer.over_runs([absent] * 3) == [absent]


def test_other_losses_than_ours_are_refused():
  losses = {('float32', 'ours'): (2.0, 1.9), ('float32', 'eager'): (2.0, 1.91)}
  with pytest.raises(RuntimeError, match='losses of eager in float32'):
    peer.check(losses)
