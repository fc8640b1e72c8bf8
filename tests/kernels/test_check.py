# SPDX-License-Identifier: Apache-2.0
"""The check of kernels on an accelerator: it finds what is wrong, and what the CPU has is right."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.bench import check


def test_without_an_accelerator_it_says_so():
  with pytest.raises(SystemExit, match='No accelerator was found'):
    check.main()


@pytest.mark.parametrize(('found', 'code'), [(0.01, False), (0.2, True), (np.nan, True)])
def test_one_wrong_comparison_is_named_and_ends_it_badly(monkeypatch, capsys, found, code):
  monkeypatch.setattr(check.jax, 'default_backend', lambda: 'gpu')
  for name in ('attention', 'lm_head', 'rows', 'recurrences'):
    one = iter([('right', 0.0, 0.0), ('asked', found, 0.1)] if name == 'rows' else [])
    monkeypatch.setattr(check, name, lambda kernel, one=one: one)
  with pytest.raises(SystemExit) as end:
    check.main()
  assert bool(end.value.code) == code
  wrong = [line.split()[0] for line in capsys.readouterr().out.splitlines() if 'WRONG' in line]
  assert wrong == ['asked'] * code


def test_an_error_is_a_share_of_the_largest_number():
  expected = (jnp.array([0.0, 4.0]), jnp.array([0.5]))
  assert check.error(expected, expected) == 0
  assert check.error((jnp.array([1.0, 4.0]), expected[1]), expected) == 0.25
  assert check.error((expected[0], jnp.array([0.75])), expected) == 0.25


def test_the_implementations_of_a_cpu_pass(monkeypatch):
  monkeypatch.setattr(check.linear, 'CHUNK', 256)
  parts = check.rows('chunked'), check.lm_head('chunked', 900, 500), check.recurrences('chunked')
  found = [*itertools.chain(*parts)]
  assert len(found) == 8
  assert all(error <= limit for _, error, limit in found)
  assert max(error for _, error, limit in found if limit == check.LIMIT) > 1e-4  # bfloat16 is seen
