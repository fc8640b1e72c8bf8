# SPDX-License-Identifier: Apache-2.0
"""The kernels' bench: its shapes are the experiments', and its rows what it says they are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import equal_info, hierarchy, lexinvariant, visual_unicode
from experiments.lexinvariant.text_models import SENTENCEPIECE
from pallas_kernels import linear_cross_entropy
from pallas_kernels.bench import __main__ as command
from pallas_kernels.bench import cases as bench_cases
from pallas_kernels.bench import measure, peers

LINEAR = 'linear_cross_entropy'


def test_shapes_are_those_of_the_configs():
  config = equal_info.get_config('paper')
  tokens, sizes = config.m2.batch_size * config.m2.length, {m[0]: m[2] for m in config.m2.models}
  widest = 2 ** max(bits for _, bits in config.m2.methods)
  expected = {
    'equal_info_113m': {'positions': tokens // 4, 'dim': sizes['113m'], 'vocab_size': widest},
    'equal_info_2b': {'positions': tokens // 16, 'dim': sizes['2b'], 'vocab_size': widest},
    'equal_info_m1': {
      'positions': config.m1.batch_size * config.m1.length, 'dim': config.m1.dim,
      'vocab_size': 256,
    },
  }  # fmt: skip
  one_card = {'positions': 2**16, 'dim': 1024, 'vocab_size': widest}
  assert expected | {bench_cases.ONE_CARD: one_card} == bench_cases.LINEAR
  options = lexinvariant.get_config('paper').text
  assert not options.row_dim
  assert {
    'sequences': options.batch_size // 4,
    'length': options.length,
    'dim': options.dim,
    'vocab_size': SENTENCEPIECE[options.vocabularies[-1]],
  } == bench_cases.LEXINVARIANT
  assert bench_cases.LEXINVARIANT_ONE_CARD['sequences'] == options.batch_size
  m1, m2 = config.m1, config.m2
  heads = {m[0]: m[3] for m in m2.models}['113m']
  sizes = {
    'lexinvariant': (options.batch_size // 4, options.length, options.heads, options.dim),
    'equal_info_113m': (m2.batch_size // 4, m2.length, heads, sizes['113m']),
    'equal_info_m1': (m1.batch_size, m1.length, m1.heads, m1.dim),
  }
  assert (m1.position, m2.position) == ('relative', 'relative')
  options = visual_unicode.get_config('paper').loss
  sizes['visual_unicode'] = options.batch_size // 64, options.length, options.heads, options.dim
  assert sizes == {
    name: (case['texts'], case['length'], case['heads'], case['heads'] * case['width'])
    for name, case in bench_cases.CAUSAL.items()
    if bench_cases.ONE_CARD not in name and name != bench_cases.GROUPED
  }


def test_recurrences_are_those_of_the_config():
  expected = {}
  for name, scale, chips in (('', 'paper', 64), ('_of_a_cpu', 'cpu', 1)):
    config = hierarchy.get_config(scale)
    training, dim = config.training, config.outer.dim
    length = training.example_bytes
    sequences = training.batch_bytes // length // chips
    layer = {'sequences': sequences, 'length': length, 'dim': 2 * dim, 'shared': False}
    averages = {'length': int(config.router.room * length), 'dim': dim, 'shared': True}
    expected |= {f'layer{name}': layer, f'averages{name}': layer | averages}
  del expected['averages_of_a_cpu']
  assert expected == bench_cases.RECURRENCE


def test_every_case_has_a_reference_a_kernel_and_a_name_of_its_own():
  cases = bench_cases.cases()
  # Not traced here: what wants a GPU; a peer that gives a sum.
  others = {('causal_attention', 'cudnn'), ('causal_attention', 'cudnn without biases'),
            (LINEAR, 'tokamax')}  # fmt: skip
  for case in cases:
    shapes = jax.eval_shape(case.inputs)
    found = [
      [x.shape for x in jax.tree.leaves(jax.eval_shape(way, *shapes))]
      for name, way in case.ways.items()
      if (case.kernel, name) not in others
    ]
    assert all(shapes == found[0] for shapes in found)
  assert len({(case.kernel, case.shape) for case in cases}) == len(cases)
  for case in cases:
    assert {'reference', 'pallas'} <= set(case.ways)
    assert len(case.flops) == len(case.bytes) == 2


def test_computing_in_parts_equals_computing_at_once():
  rng = np.random.default_rng(0)
  hidden, table, bias = (rng.normal(size=size).astype(np.float32) for size in ((8, 5), (7, 5), 7))
  targets = rng.integers(0, 7, 8)
  whole = linear_cross_entropy.linear_cross_entropy_reference
  parts = peers.in_parts(lambda h, t, w, b: whole(h, w, b, t), 4)

  def both(call):
    total = lambda *of: sum(jnp.sin(x).sum() for x in call(*of))
    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(hidden, table, bias)

  found = both(lambda h, w, b: parts((h, targets), w, b))
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
    found,
    both(lambda h, w, b: whole(h, w, b, targets)),
  )


def test_every_implementation_is_measured_or_its_error_is_reported():
  def refused(x):
    raise ValueError('not on this machine\nat all')

  ways = {'reference': lambda x: x @ x, 'pallas': refused, 'twice': lambda x: 2 * x @ x}
  one = bench_cases.Case('a', 'b', lambda: (jnp.ones((8, 8)),), ways, (0,), (1, 1), (1, 1))
  rows = list(measure.measure(one, *measure.compile_here([one])))
  assert [row[:3] for row in rows] == [
    ('b', name, way)
    for name in ('forward', 'with gradients')
    for way in ('pallas', 'reference', 'twice')
  ]
  assert all(len(row) == len(measure.MEASURED) for row in rows)
  assert rows[0][3] == 'no: not on this machine'
  assert rows[1][4] == '1.00'
  less, more = sorted(float(row[5]) for row in rows[1:3])  # printed with two decimals
  assert less == pytest.approx(1 / more, abs=0.011)


def test_recording_replaces_the_rows_of_the_device(tmp_path):
  path = tmp_path / 'RESULTS.md'
  path.write_text('# Results\n\nIntroduction.\n')
  for title, text in [('b', 'old'), ('a', '1'), ('b', 'new\n\n| x |')]:
    command.record(title, text, path)
  assert path.read_text() == '# Results\n\nIntroduction.\n\n## a\n\n1\n\n## b\n\nnew\n\n| x |\n'


def test_without_accelerator_or_compiler_it_says_so(monkeypatch):
  monkeypatch.setattr(command.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(SystemExit, match='Neither an accelerator nor libtpu'):
    command.main([])
