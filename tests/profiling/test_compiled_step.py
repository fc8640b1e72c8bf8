# SPDX-License-Identifier: Apache-2.0
"""Steps compiled for devices that need not be there, and batches taken in parts."""

import importlib
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib.data import pipeline
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.language_model import huggingface
from lib.models.decoder import Decoder, LanguageModel
from lib.objectives.next_token import next_token
from lib.parallel import sharding
from lib.profiling import compiled_step, topologies
from lib.tokenizers.characters import Characters
from lib.train import optimizer
from lib.train.experiment import Experiment
from lib.train.state import prepare
from tests.helpers import tiny

FIXTURES = pathlib.Path(__file__).parents[1] / 'fixtures'
RECIPES = ('markov', 'lexinvariant', 'equal_info', 'visual_unicode')


def train_specs(name, scale):
  config = importlib.import_module(f'configs.{name}').get_config(scale)
  return config, importlib.import_module(f'experiments.{name}.recipe').RECIPE.train_specs(config)


@pytest.mark.parametrize('name', RECIPES)
def test_the_largest_model_at_paper_scale_has_its_shapes_without_data(name):
  _, made = train_specs(name, 'paper')
  first = next(iter(made.values()))()
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  batch = compiled_step.placed_shapes(first.batch, mesh, first.experiment.batch_axis)
  training = prepare(first.experiment, first.optimizer, batch, 0, mesh)
  after, metrics = jax.eval_shape(training.step, training.shapes, batch)
  shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
  assert shapes(after) == shapes(training.shapes)
  assert {'loss', 'nats', 'bytes', 'tokens', 'gradient_norm'} <= set(metrics)
  if name == 'equal_info':  # 24 layers of width 2048 with a gated MLP of 8192, and 65,536 ids twice
    matrices = 24 * (4 * 2048**2 + 3 * 2048 * 8192) + 65_536 * 2048
    rows, length = batch['targets'].shape
    pairs = length * (length + 1) // 2
    assert training.flops == rows * (6 * length * matrices + 12 * pairs * 24 * 2048)


HLO = """HloModule step

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body (state: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %gathered = bf16[4,8]{1,0} all-gather(%part), replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %next = (s32[], bf16[4,8]) tuple(%i, %gathered)
}

%inner (p: f32[16]) -> f32[16] {
  ROOT %reduced = f32[16]{0} all-reduce(%p), replica_groups={{0,1},{2,3}}, to_apply=%add
}

%until (state: (s32[], bf16[4,8])) -> pred[] {
  %five = s32[]{:T(128)} constant(5)
  ROOT %less = pred[] compare(%counter, %five), direction=LT
}

ENTRY %main (x: f32[16]) -> f32[16] {
  %loop = (s32[], bf16[4,8]) while(%start), condition=%test, body=%body, TWELVE_TURNS
  %counted = (s32[], bf16[4,8]) while(%start), condition=%until, body=%body
  %open = (s32[], bf16[4,8]) while(%start), condition=%test, body=%body
  %both = (bf16[2]{0}, bf16[8]{0}) all-gather-start(%q), replica_groups=mesh['a'=2,'b'=4] {'b'}
  %send = (f32[4,8]{1,0:T(8,128)}, u32[], token[]) send(%x, %token), is_host_transfer=true, \
frontend_attributes={_xla_megascale_target="{1,2}x{0:15}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %sent = token[] send-done(%send), is_host_transfer=true
  %done = bf16[8]{0} all-gather-done(%both)
  ROOT %fused = f32[16]{0} fusion(%x), kind=kCustom, calls=%inner
}
""".replace('TWELVE_TURNS', 'backend_config={"known_trip_count":{"n":"12"}}')


def test_kernels_are_counted_by_what_a_program_calls():
  called = [*compiled_step.KERNELS, 'Sharding', '__cublas$gemm', compiled_step.KERNELS[0]]
  hlo = '\n'.join(f'  %x = f32[4] custom-call(%a), custom_call_target="{name}"' for name in called)
  assert compiled_step.kernels(hlo) == 4


def test_collectives_count_as_often_as_their_loops_turn():
  found = compiled_step.collectives(HLO)
  # 12 turns, 5, and one of the loop that does not say, 4·8 of 2 bytes each; and 8 of 2 bytes.
  gathered = found['all-gather']
  assert (gathered.count, gathered.bytes, gathered.unknown) == (19, 18 * 64 + 16, 1)
  assert gathered.sent == pytest.approx(gathered.bytes * 3 / 4)
  # 16 of 4 bytes between two: each sends as much as it has.
  assert found['all-reduce'] == compiled_step.Collectives(1, 64, 64.0)
  assert found['all-reduce between slices'] == compiled_step.Collectives(1, 128, 128.0)


def test_seeds_on_a_device_each_send_nothing():
  batch = jax.eval_shape(lambda: next(iter(tiny.batches())))
  several = {
    name: jax.ShapeDtypeStruct((3, *array.shape), array.dtype) for name, array in batch.items()
  }
  chain = optimizer.make_optimizer('adamw', lambda _: 1e-3)
  mesh = sharding.independent_devices(jax.devices()[4:7])
  step = compiled_step.compile_step(tiny.make(), chain, several, mesh, seeds=3)
  assert not step.collectives
  alone = prepare(tiny.make(), chain, batch, 0, sharding.make_mesh({}, jax.devices()[:1]))
  assert step.flops == 3 * alone.flops


def test_a_model_of_hugging_face_is_compiled_from_its_config_alone():
  module = huggingface.read_shape(FIXTURES / 'hf/llama').module
  mesh, batch = sharding.make_mesh({'fsdp': 8}), pipeline.shapes(8, 16)
  of = lambda dtype: compiled_step.compile_method(module, '__call__', batch, mesh, dtype)
  narrow, wide = of(jnp.bfloat16), of(jnp.float32)
  trained = compiled_step.compile_step(
    Experiment(*next_token(module), ()),
    optimizer.make_optimizer('adamw', lambda _: 1e-3),
    batch,
    mesh,
  )
  assert narrow.parameters == wide.parameters == trained.parameters
  assert narrow.flops == wide.flops == trained.flops / 3
  # Most matrices are sharded: of each chip an eighth and more, in two bytes less.
  assert wide.arguments - narrow.arguments > 2 * wide.parameters / 8
  assert wide.collectives['all-gather'].bytes > 0
  assert narrow.outputs == wide.outputs == 4 * 16


@pytest.mark.parametrize(
  ('axes', 'kind'), [({'data': 8}, 'all-reduce'), ({'fsdp': 8}, 'all-gather')], ids=str
)
def test_a_step_is_accounted_for(axes, kind):
  experiment, mesh = tiny.make(), sharding.make_mesh(axes)
  batch = jax.eval_shape(lambda: next(iter(tiny.batches())))
  chain = optimizer.make_optimizer('adamw', lambda _: 1e-3)
  step = compiled_step.compile_step(experiment, chain, batch, mesh)
  state = prepare(experiment, chain, batch, 0, mesh).shapes
  here = sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in (*jax.tree.leaves(state), *(x.update(sharding=place) for x, place in zip(
      batch.values(), sharding.batch_shardings(batch, mesh, 0).values())))
  )  # fmt: skip
  assert step.arguments == pytest.approx(here, rel=0.02)  # scalars are padded
  assert step.collectives[kind].bytes > 4 * step.parameters / 2
  # Two layers of 12·16² and an LM head of 7·16; scores of 36 pairs over 16 wide in each.
  matrices = 2 * (4 * 16 * 16 + 2 * 16 * 32) + 7 * 16
  assert step.flops == 8 * (8 * 6 * matrices + 36 * 12 * 16 * 2)


def test_weights_that_are_spread_are_gathered_and_activations_are_not():
  model = LanguageModel(
    Learned(64, 64), Decoder(layers=2, dim=64, heads=4, mlp_dim=128, max_length=64)
  )
  experiment = Experiment(*next_token(model), ())
  chain = optimizer.make_optimizer('adamw', lambda _: 1e-3)
  whole, spread = (
    compiled_step.compile_step(experiment, chain, pipeline.shapes(64, 64), sharding.make_mesh(axes))
    for axes in ({'data': 8}, {'fsdp': 8})
  )
  assert spread.arguments < whole.arguments / 4
  # Gathered weights are held, once at most; activations of all rows would be eight times as much.
  assert spread.temporaries <= whole.temporaries + 4 * spread.parameters
  # Each weight at most forward and backward, and small biases of attention.
  assert spread.collectives['all-gather'].bytes < 2.5 * 4 * spread.parameters


@pytest.mark.parametrize(
  ('topology', 'part'),
  [
    ('v5e-256', 'is not one of'),
    ('cpu:x', 'is not one of'),
    ('cpu:0', 'is not one of'),
    ('cpu:9', 'has 8 devices of the CPU'),
    ('h200x8', 'extra cuda'),
  ],
)
def test_topologies_that_cannot_be_had_are_named(topology, part):
  with pytest.raises(InputError, match=part):
    topologies.devices(topology)


def of_padded_rows():
  """A batch of documents of 1 to 8 tokens."""
  documents = [bytes(np.arange(1 + i % 8, dtype=np.uint8) % tiny.V) for i in range(8)]
  tokenizer = Characters(bytes(range(tiny.V)))
  rows = pipeline.batches(documents, tokenizer, batch_size=8, length=tiny.T, seed=0, pack=False)
  return next(iter(rows)) | {'scale': np.ones(8, np.float32)}


def test_a_batch_in_parts_gives_the_step_of_the_whole():
  experiment, batch = tiny.make(), of_padded_rows()
  chain = optimizer.make_optimizer('adamw', lambda _: 1e-2, clip_norm=1.0)
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2}, jax.devices()[:4])
  placed = sharding.global_batch(batch, mesh)

  def after(parts):
    training = prepare(experiment, chain, placed, 0, mesh, parts)
    return jax.device_get(training.step(training.make(), placed))

  (whole, told), (parts, summed) = after(1), after(2)
  # Adam's first step divides gradients by their own size, so tiny ones show rounding.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), whole, parts
  )  # fmt: skip
  assert told['tokens'] == summed['tokens'] == batch['segments'].sum()
  for name in ('loss', 'nats', 'gradient_norm'):
    assert summed[name] == pytest.approx(told[name], rel=1e-5)


def test_parts_that_do_not_divide_a_batch_are_refused():
  experiment, chain = tiny.make(), optimizer.make_optimizer('adamw', lambda _: 1e-2)
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  batch = jax.eval_shape(lambda: next(iter(tiny.batches())))
  with pytest.raises(InputError, match='batch of 8 does not divide into accumulate=3 parts'):
    compiled_step.compile_step(experiment, chain, batch, mesh, accumulate=3)


def test_slices_lie_along_data():
  class Device:
    platform, device_kind = 'cpu', 'cpu'

    def __init__(self, number):
      self.id, self.slice_index, self.process_index = number, number % 2, number % 2

  devices = [Device(number) for number in range(8)]
  placed = sharding.arrange((4, 1, 2), devices)
  assert [{one.slice_index for one in row.flat} for row in placed] == [{0}, {0}, {1}, {1}]
  with pytest.raises(InputError, match='data axis of 1 does not divide among 2 slices'):
    sharding.arrange((1, 4, 2), devices)
