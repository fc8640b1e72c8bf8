# SPDX-License-Identifier: Apache-2.0
"""The loop: learning, exact resumption, faults, meshes, replicas."""

import dataclasses
import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

from lib.errors import InputError, refusal
from lib.parallel import sharding
from lib.parameters import Declaration
from lib.train import loop, metrics, optimizer, replicas
from lib.train.state import prepare
from tests.helpers import faulty, tiny


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
  folder = tmp_path_factory.mktemp('unbroken')
  state, history = tiny.run(folder, 14)
  return folder, jax.device_get(state), history


def equal(a, b):
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, jax.device_get(a), jax.device_get(b))))


def test_learns_and_writes_its_history(unbroken):
  folder, _, history = unbroken
  losses = tiny.losses(history)
  assert sorted(losses) == list(range(1, 15))
  assert losses[14] < 0.7 * losses[1]
  evaluated = [line['step'] for line in history if 'validation/nats_per_byte' in line]
  assert evaluated == [0, 5, 10, 14]
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line) for line in lines] == history
  assert list((folder / 'tensorboard/train').glob('events*'))


def test_killed_at_a_random_step_resumes_to_identical_losses(unbroken, tmp_path):
  _, state, history = unbroken
  step = random.randrange(1, 14)
  killed = subprocess.run(
    [sys.executable, '-m', 'tests.helpers.tiny', str(tmp_path), str(step)], check=False
  )
  assert killed.returncode == -signal.SIGKILL
  resumed, again = tiny.run(tmp_path, 14)
  assert tiny.losses(again) == tiny.losses(history), f'killed when step {step} was read'
  assert equal(resumed, state)


def test_sigterm_saves_and_the_same_command_goes_on(unbroken, tmp_path, monkeypatch):
  _, state, history = unbroken
  calls = []
  original = sharding.global_batch

  def terminate(batch, mesh, axis):
    calls.append(1)
    if len(calls) == 7:  # the first call only reads shapes: this is the batch of step 5
      os.kill(os.getpid(), signal.SIGTERM)
    return original(batch, mesh, axis)

  monkeypatch.setattr(sharding, 'global_batch', terminate)
  with pytest.raises(loop.Stopped, match='at step 6, saved'):
    tiny.run(tmp_path, 14)
  assert (tmp_path / 'checkpoints/train/6').is_dir()
  monkeypatch.undo()
  resumed, again = tiny.run(tmp_path, 14)
  assert tiny.losses(again) == tiny.losses(history)
  assert equal(resumed, state)


def test_ctrl_c_in_the_last_step_is_not_lost(tmp_path, monkeypatch):
  original, before = loop.check_finite, signal.getsignal(signal.SIGINT)

  def terminate(step, values):
    if step == 2:
      os.kill(os.getpid(), signal.SIGINT)
    original(step, values)

  monkeypatch.setattr(loop, 'check_finite', terminate)
  with pytest.raises(loop.Stopped, match='by Ctrl-C after step 3, saved') as caught:
    tiny.run(tmp_path, 3)
  assert caught.value.code == 130
  assert signal.getsignal(signal.SIGINT) is before  # a shell ignores it for jobs in the background
  assert (tmp_path / 'checkpoints/train/3').is_dir()


def test_sigterm_breaks_off_an_evaluation_which_is_made_up_for(unbroken, tmp_path, monkeypatch):
  _, _, history = unbroken
  original = tiny.held_out.held_out
  calls = []

  def held_out(*args, **options):
    def evaluate(variables):
      calls.append(1)
      if len(calls) == 2:  # at step 5
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
      return original(*args, **options)(variables)

    return evaluate

  monkeypatch.setattr(tiny.held_out, 'held_out', held_out)
  begin = time.monotonic()
  with pytest.raises(loop.Stopped, match='at step 5, saved'):
    tiny.run(tmp_path, 14)
  assert time.monotonic() - begin < 60
  _, again = tiny.run(tmp_path, 14)
  strip = lambda lines: [{k: v for k, v in line.items() if 'second' not in k} for line in lines]
  assert strip(again) == strip(history)


def test_seconds_count_every_step_and_no_evaluation(tmp_path, monkeypatch):
  # Evaluations that take a second each must not show, nor swallow the steps around them.
  slow = tiny.held_out.held_out

  def held_out(*args, **options):
    evaluate = slow(*args, **options)
    return lambda variables: time.sleep(1) or evaluate(variables)

  monkeypatch.setattr(tiny.held_out, 'held_out', held_out)
  _, history = tiny.run(tmp_path, 6)
  assert history[-1]['seconds'] < 1


def test_a_profile_is_left_for_the_steps_asked_for(tmp_path):
  tiny.run(tmp_path, 5, profile=(2, 100))
  assert list((tmp_path / 'profile/train').rglob('*.xplane.pb'))


def test_a_batch_that_does_not_divide_is_refused():
  batch = {'inputs': np.zeros((4, 8), np.int32)}
  with pytest.raises(InputError, match='batch of 4 does not divide among the 8 devices'):
    sharding.global_batch(batch, sharding.make_mesh({'data': 8}))


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'evaluate_every': 0}, 'must be 1 or more; got 10, 0, 1000 and 1'),
    ({'accumulate': 0}, 'must be 1 or more; got 10, 100, 1000 and 0'),
    ({'profile': (3,)}, r'profile=\(3,\) contains no step'),
    ({'profile': (3, 3)}, r'profile=\(3, 3\) contains no step'),
  ],
)
def test_steps_that_never_come_are_refused(tmp_path, options, message):
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  with pytest.raises(InputError, match=message):
    loop.train(
      tiny.make(), optax.sgd(0.1), steps=2, seed=0, mesh=mesh, workdir=tmp_path,
      **options,
    )  # fmt: skip
  assert not list(tmp_path.iterdir())


def test_a_score_over_nothing_is_refused():
  with pytest.raises(InputError, match='no held-out batch to evaluate on'):
    tiny.held_out.held_out(lambda *_: (0.0, {}), [])({})


def test_nan_stops_the_run_and_names_the_step(tmp_path):
  with pytest.raises(loop.Diverged, match='loss is nan at step 6'):
    tiny.run(tmp_path, 14, poison=6)
  assert sorted(p.name for p in (tmp_path / 'checkpoints/train').iterdir()) == ['4']


def largest_file(folder: pathlib.Path) -> pathlib.Path:
  return max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


def damage(folder, how, part='state'):
  path = largest_file(folder / part)
  data = bytearray(path.read_bytes())
  if how == 'truncated':
    path.write_bytes(data[: len(data) // 2])
  elif how == 'flipped':
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
  elif how == 'altered':
    text = folder / part / '_strings.json'
    text.write_text(text.read_text().replace('9', '7'))
  else:
    path.unlink()


@pytest.mark.parametrize(
  ('how', 'part'),
  [
    ('truncated', 'state'),
    ('flipped', 'state'),
    ('deleted', 'state'),
    ('altered', 'notes'),
    ('truncated', 'notes'),
  ],
)
def test_damaged_checkpoint_is_named_and_the_one_before_used(unbroken, tmp_path, how, part, caplog):
  _, state, history = unbroken
  tiny.run(tmp_path, 9)  # checkpoints 8 and 9
  damage(tmp_path / 'checkpoints/train/9', how, part)
  resumed, again = tiny.run(tmp_path, 14)
  assert 'checkpoints/train/9 is damaged' in caplog.text
  assert tiny.losses(again) == tiny.losses(history)
  assert equal(resumed, state)


@pytest.fixture(scope='module')
def record(tmp_path_factory):
  folder = tmp_path_factory.mktemp('record')
  faulty.run(folder, 24)
  return faulty.record(folder)


def test_a_disk_that_is_full_ends_the_run_and_loses_nothing(record, tmp_path):
  # No file may pass 100 kB: metrics fit, the table of 263 kB does not.
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
  try:
    with pytest.raises(Exception, match='File too large') as caught:
      faulty.run(tmp_path, 24)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert refusal(caught.value) == 'File too large'
  faulty.run(tmp_path, 24)
  assert set(faulty.record(tmp_path)) == set(record)


def test_a_clock_that_is_set_back_changes_nothing(record, tmp_path, monkeypatch):
  times = iter(range(2_000_000_000, 0, -3600))
  monkeypatch.setattr(time, 'time', lambda: float(next(times)))
  faulty.run(tmp_path, 15)
  faulty.run(tmp_path, 24)
  steps = lambda lines: [line for line in lines if not line.startswith('end')]
  assert steps(faulty.record(tmp_path)) == steps(record)
  assert sorted(p.name for p in (tmp_path / 'checkpoints/train').iterdir()) == ['20', '24']


def test_the_bar_goes_on_when_the_clock_is_set_back(monkeypatch):
  bar = metrics.progress_bar('train', 10)
  bar.mininterval = bar.delay = 0
  monkeypatch.setattr(time, 'time', lambda: 0.0)
  bar.update()
  assert bar.last_print_n == 1
  bar.close()


def test_all_checkpoints_damaged_is_said(tmp_path):
  tiny.run(tmp_path, 3)
  damage(tmp_path / 'checkpoints/train/3', 'deleted')
  with pytest.raises(InputError, match='every checkpoint'):
    tiny.run(tmp_path, 5)


def test_checkpoints_of_another_run_are_refused_and_the_difference_named(tmp_path):
  tiny.run(tmp_path, 2, identity={'config': {'rate': 0.1}, 'content': {'the text of a': 'x'}})
  others = (0.2, 'x', 'rate is 0.1 there and 0.2 here'), (0.1, 'y', 'the text of a is another')
  for rate, text, named in others:
    other = {'config': {'rate': rate}, 'content': {'the text of a': text}}
    with pytest.raises(InputError, match=f'checkpoints of another run: {named}'):
      tiny.run(tmp_path, 2, identity=other)


@pytest.mark.parametrize(
  'axes', [{'data': 8}, {'fsdp': 8}, {'tensor': 8}, {'data': 2, 'fsdp': 2, 'tensor': -1}]
)
def test_every_mesh_of_eight_devices_gives_the_single_device_losses(unbroken, tmp_path, axes):
  _, _, history = unbroken
  _, sharded = tiny.run(tmp_path, 6, mesh=sharding.make_mesh(axes))
  # Float32 sums in another order: relative 1e-4 over six steps.
  for step, value in tiny.losses(sharded).items():
    assert value == pytest.approx(tiny.losses(history)[step], rel=1e-4)


def test_a_run_goes_on_over_other_meshes_and_numbers_of_devices(unbroken, tmp_path):
  _, _, history = unbroken
  meshes = [(1, {'data': 1}), (4, {'data': 2, 'fsdp': 2}), (8, {'data': 4, 'tensor': 2})]
  for life, (devices, axes) in enumerate([*meshes, (2, {'fsdp': 2})], start=1):
    mesh = sharding.make_mesh(axes, jax.devices()[:devices])
    _, resumed = tiny.run(tmp_path, 3 * life, mesh=mesh)
  losses, alone = tiny.losses(resumed), tiny.losses(history)
  assert [*losses] == [*range(1, 13)]
  # One device takes the same steps bit for bit; more sum float32 in another order.
  assert [losses[step] for step in (1, 2, 3)] == [alone[step] for step in (1, 2, 3)]
  for step in range(4, 13):
    assert losses[step] == pytest.approx(alone[step], rel=1e-5)


def test_replicas_train_as_if_alone():
  experiment = tiny.make()
  batch = next(iter(tiny.batches()))
  stacked = jax.tree.map(lambda x: np.stack([x, x[::-1]]), batch)
  pair = replicas.replicate(experiment, 2, [stacked])
  key = jax.random.key(5)
  variables = jax.jit(pair.init_fn)(key, stacked)
  slope = lambda trained: jax.jit(jax.grad(lambda *of: trained.loss_fn(*of)[0]))
  gradient = slope(pair)(variables, stacked, key)
  for index, single in enumerate(jax.random.split(key, 2)):
    own, rows, both = (
      jax.tree.map(lambda x: x[index], tree) for tree in (variables, stacked, gradient)
    )
    assert equal(own, jax.jit(experiment.init_fn)(single, rows))
    alone = slope(experiment)(own, rows, single)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), both, alone)


def test_a_seed_a_device_by_pmap_trains_as_if_alone_and_resumes(unbroken, tmp_path):
  _, _, history = unbroken
  seeds, mesh = range(3, 11), sharding.make_mesh({'data': 8})
  state, lines = tiny.run(tmp_path / 'whole', 6, mesh, seed=seeds)
  assert all(len(leaf.devices()) == 8 for leaf in jax.tree.leaves(state['variables']))
  found = tiny.losses(lines)
  assert {len(losses) for losses in found.values()} == {8}
  # Another program in float32: relative 1e-5 over six steps.
  for step in range(1, 7):
    assert found[step][0] == pytest.approx(tiny.losses(history)[step], rel=1e-5)
  assert len(set(found[6])) == 8
  tiny.run(tmp_path / 'parts', 4, mesh, seed=seeds)
  parts, again = tiny.run(tmp_path / 'parts', 6, mesh, seed=seeds)
  assert tiny.losses(again) == found
  assert equal(parts, state)


def test_training_starts_from_given_weights_and_resumes_from_its_own(unbroken, tmp_path):
  _, end, history = unbroken
  given = jax.tree.map(jax.numpy.asarray, end['variables'])
  whole, lines = tiny.run(tmp_path / 'whole', 6, initial=given)
  score = lambda lines, step: [
    line['validation/nats_per_byte']
    for line in lines
    if line['step'] == step and 'validation/nats_per_byte' in line
  ]
  assert score(lines, 0) == score(history, 14)
  assert equal(given, end['variables'])  # the step has not taken its memory
  tiny.run(tmp_path / 'parts', 3, initial=given)
  zeros = jax.tree.map(np.zeros_like, end['variables'])
  parts, again = tiny.run(tmp_path / 'parts', 6, initial=zeros)
  assert tiny.losses(again) == tiny.losses(lines)
  assert equal(parts, whole)
  # The same as a program that has the weights in its code.
  constants = dataclasses.replace(tiny.make(), init_fn=lambda key, batch: given)
  chain, mesh = optax.adam(1e-2), sharding.make_mesh({}, jax.devices()[:1])
  states = []
  for experiment in (constants, dataclasses.replace(tiny.make(), initial=given)):
    batch = next(iter(tiny.batches()))
    states.append(prepare(experiment, chain, batch, 0, mesh).make())
  assert equal(*states)


def test_given_weights_are_spread_and_cast_as_those_of_the_model(unbroken):
  _, end, _ = unbroken
  halves = jax.tree.map(lambda leaf: leaf.astype(jax.numpy.bfloat16), end['variables'])
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  batch = next(iter(tiny.batches()))
  found = []
  for initial in (None, halves):
    experiment = dataclasses.replace(tiny.make(), initial=initial)
    training = prepare(experiment, optax.adam(1e-2), batch, 0, mesh)
    found.append(training.make())
    for leaf, shape in zip(jax.tree.leaves(found[-1]), jax.tree.leaves(training.shapes)):
      assert (leaf.dtype, leaf.sharding) == (shape.dtype, shape.sharding)
  like = lambda state: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), state)
  assert like(found[0]) == like(found[1])
  exact = jax.tree.map(lambda leaf: leaf.astype(np.float32), halves)
  assert equal(found[1]['variables'], exact)


def test_given_weights_of_another_model_are_named(unbroken, tmp_path):
  _, end, _ = unbroken

  def changed(change):
    variables = jax.tree.map(np.asarray, end['variables'])
    change(variables['params']['embedding'])
    return variables

  for change, message in (
    (lambda tree: tree.pop('bos'), r'lack params/embedding/bos \(16,\)'),
    (lambda tree: tree.update(more=np.zeros(3)), r'contain params/embedding/more \(3,\), which'),
    (lambda tree: tree.update(table=np.zeros((8, 16))), r'table of shape \(8, 16\); .* \(7, 16\)'),
  ):
    with pytest.raises(InputError, match=message):
      tiny.run(tmp_path, 2, initial=changed(change))
  assert not (tmp_path / 'metrics.jsonl').exists()


@pytest.mark.parametrize(
  'axes', [{'data': 3}, {'data': 2}, {'dat': 8}, {'data': -1, 'fsdp': -1}, {'data': 0}]
)
def test_impossible_meshes_are_refused(axes):
  with pytest.raises(InputError, match='mesh'):
    sharding.make_mesh(axes)


def test_an_axis_that_does_not_divide_is_left_out():
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  fitted = sharding.fit(jax.P('tensor', 'fsdp'), (7, 16), mesh)
  assert fitted.spec == jax.P(None, 'fsdp')
  assert sharding.fit(jax.P('tensor', 'fsdp'), (3, 8, 16), mesh).spec == jax.P(
    None, 'tensor', 'fsdp'
  )


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_weight_decay_touches_matrices_alone(name):
  declared = {
    'params/blocks/up/kernel': Declaration(('fsdp', 'tensor'), inputs=1),
    'params/table': Declaration(('tensor', 'fsdp')),
  }
  chain = optimizer.make_optimizer(name, lambda _: 1.0, weight_decay=0.5)(declared)
  block = {'kernel': np.ones((2, 3, 3), np.float32), 'bias': np.ones(3, np.float32)}
  params = {'blocks': {'up': block}, 'table': np.ones((4, 3), np.float32)}
  zero = jax.tree.map(np.zeros_like, params)
  updates, _ = chain.update(zero, chain.init(params), params)
  np.testing.assert_allclose(updates['blocks']['up']['kernel'], -0.5 * np.ones((2, 3, 3)))
  np.testing.assert_allclose(updates['blocks']['up']['bias'], np.zeros(3))
  np.testing.assert_allclose(updates['table'], np.zeros((4, 3)))


def test_schedules_meet_their_definitions():
  # Official run: peak 2e-3, warm-up 2 % from peak / 100, ends at a fifth of the peak.
  rate = optimizer.make_schedule('cosine', 2e-3, 500, 10, 0.2)
  assert float(rate(0)) == pytest.approx(2e-5, rel=1e-4)
  assert float(rate(10)) == pytest.approx(2e-3, rel=1e-4)
  assert float(rate(500)) == pytest.approx(4e-4, rel=1e-4)
  # rsqrt: halved when the step is four times the warm-up.
  assert float(optimizer.make_schedule('rsqrt', 1.0, 0, 100, 0.0)(400)) == pytest.approx(0.5)
  with pytest.raises(InputError, match='constant, cosine, rsqrt'):
    optimizer.make_schedule('linear', 1.0, 10, 1, 0.0)
