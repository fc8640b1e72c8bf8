# SPDX-License-Identifier: Apache-2.0
"""Language models over tokens: what is scored, what it costs, what a compressed text gives away."""

import functools
import math

import jax
import numpy as np
import pytest

from configs import common, equal_info
from experiments.equal_info import __main__ as recipe
from experiments.equal_info import codecs, corpus, decompress, m2, m2_plots, models, texts, windows
from experiments.equal_info import scores as scoring
from experiments.runner import Run
from lib.data import encoded, pipeline, sources
from lib.data.encoded import Encoded
from lib.errors import InputError
from lib.models import byte_model, one_pass
from lib.models.byte_stepper import ByteStepper
from lib.report.results import Row
from lib.tokenizers import Characters, EqualInfo
from lib.tokenizers.coding.streams import SteppedAC
from lib.tokenizers.coding.tabulate import tabulate
from lib.tokenizers.coding.window_streams import SteppedEqualInfo
from lib.train import language_model, sharding
from lib.train.experiment import Experiment
from tests import byte_models
from tests.test_configs import shape_check

TEXT = byte_models.held_out()


@pytest.fixture(scope='module')
def windows16():
  return EqualInfo(tabulate(byte_models.NGram(TEXT[:20_000], 1), 16, 'greedy'), token_bits=8)


def test_encoded_documents_cover_their_bytes_and_make_their_batches(tmp_path, windows16):
  documents = [TEXT[i : i + 50] for i in range(0, 2000, 50)]
  run = Run(tmp_path, None)
  found = corpus.encoded(run, windows16, [*documents, b''])
  assert len(found) == len(documents) + 1
  assert found.bytes == 2000
  for i, document in enumerate(documents):
    assert found[i][0].tolist() == windows16.encode(document).tolist()
    assert found[i][1].sum() == len(document)
  assert not found[len(documents)].size
  options = {'batch_size': 4, 'length': 24, 'seed': 1}
  for pack in (True, False):
    kept = corpus.encoded(run, windows16, documents)
    ours = iter(pipeline.batches(kept, windows16, pack=pack, **options))
    straight = iter(pipeline.batches(documents, windows16, pack=pack, **options))
    for _ in range(5):
      one, other = next(ours), next(straight)
      for field in ('targets', 'inputs', 'segments', 'positions'):
        np.testing.assert_array_equal(one[field], other[field])


def test_documents_are_encoded_once_and_damage_is_named(tmp_path, windows16):
  documents, calls = [TEXT[:300], b'', TEXT[300:340]], []

  def encode(tokenizer, documents):
    def work(documents):
      calls.append(len(documents))
      return codecs.encode(tokenizer, documents)

    return encoded.encode(tmp_path, tokenizer.fingerprint, documents, work)

  first, again = encode(windows16, documents), encode(windows16, documents)
  assert calls == [3]
  assert first.tokens.tolist() == again.tokens.tolist()
  assert first.counts.tolist() == again.counts.tolist()
  [kept] = tmp_path.iterdir()
  encode(windows16, documents[:1])  # another text
  encode(Characters(), documents)  # another tokenizer
  assert calls == [3, 1, 3]
  kept.write_bytes(kept.read_bytes()[:-1])
  with pytest.raises(InputError, match='cut short or damaged'):
    encode(windows16, documents)


def test_streams_made_in_one_pass_are_those_of_the_stepping_codec():
  sizes = byte_model.Sizes(layers=1, dim=16, heads=2, mlp_dim=16, context=16, streams=4)
  batch = pipeline.whole(np.zeros((1, 4), np.int32), 256)
  variables = jax.jit(byte_model.make(sizes).init)(jax.random.key(0), batch, jax.random.key(0))
  model = byte_model.ByteModel(sizes, variables)
  stepper = ByteStepper(model)
  documents = [TEXT[i : i + n] for i, n in ((0, 0), (1, 1), (2, 14), (3, 15), (40, 16), (60, 90))]
  found = list(one_pass.probabilities(model, documents))
  for document, rows in zip(documents, found, strict=True):
    assert len(rows) == len(document) + 1
    stepper.reset(np.ones(4, bool))
    stepped = [stepper.start()]
    for byte in document:
      stepped.append(stepper.step(np.full(4, byte, np.uint8))[0])
    np.testing.assert_allclose(rows, stepped, atol=2e-5)
  codec = SteppedAC(stepper, model.fingerprint, 8)
  same = 0
  for one, other in zip(
    one_pass.encode_all(model, documents, 8), codec.encode_all(documents), strict=True
  ):
    assert (one.size, one.crc, one.byte_lengths.sum()) == (other.size, other.crc, one.size)
    assert abs(one.ids.size - other.ids.size) <= 1
    if one.ids.tolist() == other.ids.tolist():  # else rounding moved a frequency
      assert one.byte_lengths.tolist() == other.byte_lengths.tolist()
      same += 1
  assert same >= 4
  stepped = SteppedEqualInfo(stepper, model.fingerprint, 32, 'greedy', 8)
  some = documents[1:]
  ahead = one_pass.Foreseen(model, some, 5)  # windows are longer than that, and than M1 sees
  unstepped = SteppedEqualInfo(ahead, model.fingerprint, 32, 'greedy', 8)
  same = 0
  for one, other in zip(unstepped.encode_all(some), stepped.encode_all(some), strict=True):
    assert one.byte_lengths.sum() == one.size
    same += one.ids.tolist() == other.ids.tolist()
  assert same >= 4


def test_rows_come_shuffled_in_epochs_and_go_on_where_they_were():
  arrays = {'targets': np.arange(12)[:, None].repeat(3, 1), 'scored': np.ones((12, 3), np.int32)}
  data = iter(pipeline.rows(arrays, batch_size=4, seed=0))
  seen = [next(data)['targets'][:, 0] for _ in range(6)]
  for epoch in (seen[:3], seen[3:]):
    assert sorted(np.concatenate(epoch).tolist()) == list(range(12))
  assert np.concatenate(seen[:3]).tolist() != np.concatenate(seen[3:]).tolist()
  fresh = iter(pipeline.rows(arrays, batch_size=4, seed=0))
  next(fresh)
  state = fresh.get_state()
  expected = next(fresh)['targets']
  resumed = iter(pipeline.rows(arrays, batch_size=4, seed=0))
  resumed.set_state(state)
  np.testing.assert_array_equal(next(resumed)['targets'], expected)


def test_a_loss_counts_only_what_is_scored():
  batch = pipeline.whole(np.arange(6).reshape(2, 3), 6)
  nats = np.arange(1.0, 7.0).reshape(2, 3)

  class Fixed:
    apply = staticmethod(lambda variables, batch, key: nats)

  loss_fn = language_model.loss_and_init(Fixed)[1]
  assert loss_fn({}, batch, None)[0] == pytest.approx(3.5)
  scored = {'scored': np.array([[0, 1, 0], [1, 0, 0]])}
  value, sums = loss_fn({}, batch | scored, None)
  assert value == pytest.approx(3.0)  # (2 + 4) / 2
  assert sums['tokens'] == sums['bytes'] == 2


def scores(nats, covered):
  nats, covered = np.array(nats, float), np.array(covered)
  return scoring.Scores(nats, covered, np.ones_like(covered, bool), np.zeros_like(covered))


def test_scores_are_ratios_of_sums_over_examples():
  two = scores([[1, 3], [2, 2], [1, 1]], [[0, 2], [1, 1], [0, 4]])
  assert two.per_byte()[0] == pytest.approx(10 / 8)
  assert two.per_token()[0] == pytest.approx(10 / 6)
  assert two.per_token(1)[0] == pytest.approx(6 / 3)
  assert two.per_byte()[1] > 0
  assert scoring.over_seeds([(1.0, 0.1)]) == (1.0, 0.1)
  assert scoring.over_seeds([(1.0, 0.1), (3.0, 0.1)]) == (2.0, pytest.approx(1.0))
  real = np.array([[True, True, True, True], [True, True, False, False]])
  values = np.array([[1.0, 2, 3, 4], [5, 6, 0, 0]])
  np.testing.assert_allclose(scoring.by_position(values, real, 2), [3, 4])


@pytest.fixture(scope='module')
def stand_in(tmp_path_factory, windows16):
  """A smoke config whose tokenizers are made from an n-gram: no M1 is trained."""
  config = equal_info.get_config('smoke')
  run = Run(tmp_path_factory.mktemp('m2'), sharding.make_mesh({'data': -1}, jax.devices()[:1]))
  make = codecs.make
  patch = pytest.MonkeyPatch()
  patch.setattr(
    codecs, 'make',
    lambda config, run, method: windows16 if method.name[:6] == 'greedy' or method.name == 'ac'
    else make(config, run, method),
  )  # fmt: skip
  yield config, run
  patch.undo()


def test_decompression_rows_hold_the_tokens_and_then_the_bytes(stand_in, windows16):
  config, run = stand_in
  found = decompress.make_texts(config, run, 'test', 20)
  assert 0 <= found.left_out < 1
  rows = decompress.make_rows(config, found, 'greedy24')
  room, size = config.decompress.room, config.decompress.text_bytes
  begin = decompress.vocab_size(config)
  for i, data in enumerate(found.data):
    ids = windows16.encode(data.tobytes())
    assert rows['targets'][i, : ids.size].tolist() == (256 + ids).tolist()
    assert rows['segments'][i].tolist() == [1] * ids.size + [0] * (room - ids.size) + [1] * size
    assert rows['inputs'][i, 0] == rows['inputs'][i, room] == begin
    assert rows['inputs'][i, room + 1 :].tolist() == data[:-1].tolist()
  assert rows['scored'][0].tolist() == rows['bytes'][0].tolist() == [0] * room + [1] * size
  others = decompress.make_rows(config, found, 'greedy24' + decompress.OTHERS)
  np.testing.assert_array_equal(others['targets'][:, room:], rows['targets'][:, room:])
  np.testing.assert_array_equal(others['targets'][:-1, :room], rows['targets'][1:, :room])
  control = decompress.make_rows(config, found, decompress.CONTROL)
  for field in ('targets', 'inputs', 'scored'):
    np.testing.assert_array_equal(control[field], rows[field][:, room:])


def test_what_is_read_before_tells_on_the_bytes_and_the_control_cannot_see_it(stand_in):
  config, run = stand_in
  found = decompress.make_texts(config, run, 'test', 8)
  model = decompress.make_model(config)
  rows = decompress.make_rows(config, found, 'greedy24')
  variables = jax.jit(model.init)(jax.random.key(0), rows, jax.random.key(0))
  read = decompress.reader(model)
  right, nats = read(variables, rows)
  assert right.shape == nats.shape == found.data.shape
  other = rows | {'inputs': rows['inputs'].copy()}
  other['inputs'][:, 1] = 256 + (other['inputs'][:, 1] + 1) % 256
  assert (np.abs(read(variables, other)[1] - nats) > 1e-7).all(axis=1).any()
  loss = language_model.loss_and_init(model)[1]
  assert float(loss(variables, rows, jax.random.key(0))[0]) == pytest.approx(nats.mean(), rel=1e-4)


def test_a_difference_is_paired_and_has_its_interval():
  config = equal_info.get_config('smoke')
  half = config.decompress.text_bytes // 2
  control = np.zeros((50, 2 * half))
  control[:, :half] = np.arange(50)[:, None] % 2
  better = control.copy()
  better[:, half:] = 1
  rows = {r.column: r for r in decompress._against(config, 'ac', [better], [control], 'control')}
  whole = rows['accuracy_above_control']
  assert (whole.measured, whole.sem) == (0.5, pytest.approx(0.0))  # texts differ, pairs do not
  assert 'above the control' in whole.note
  assert rows['accuracy_above_control_first_half'].measured == 0
  noisy = np.random.default_rng(0).integers(0, 2, (2, 50, 2 * half))
  rows = {r.column: r for r in decompress._against(config, 'ac', [noisy[0]], [noisy[1]], 'control')}
  assert 'not to be told from the control' in rows['accuracy_above_control'].note


def test_trivial_guesses_are_the_most_frequent_of_each_position():
  class Fixed:
    window, vocab_size = 2, 4
    train = Encoded(np.array([3, 1, 3, 2, 0, 2]), np.ones(6, int), np.array([4, 2]))
    validation = Encoded(np.array([3, 0, 3, 2]), np.ones(4, int), np.array([4]))

  assert windows.trivial(Fixed).tolist() == [1.0, 0.5]


def test_stretches_lie_within_documents_and_spread_over_them():
  config = equal_info.get_config('smoke')
  found = texts.stretches(config, 'test', 64, 6400)
  assert len(found) == 100
  assert {len(one) for one in found} == {64}
  spread = texts.stretches(config, 'test', 64, 6400, most=2)
  documents = sources.open_source(config.data.source, 'test')
  lies_in = lambda stretch: {i for i in range(len(documents)) if stretch in documents[i]}
  assert all(map(lies_in, (*found, *spread)))
  of_few, of_many = (set.union(*map(lies_in, some)) for some in (found, spread))
  assert len(of_few) < len(of_many)
  with pytest.raises(InputError, match='no document of stdlib/prose'):
    texts.stretches(config, 'test', 10**9, 1)


@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_builds_and_steps(scale):
  config = equal_info.get_config(scale)
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 1}, jax.devices()[:4])
  widest = max(bits for _, bits in config.m2.methods)
  for size in dict.fromkeys((config.m2.models[0], config.m2.models[-1])):
    model = m2.make_model(config, size, 1 << widest)
    ids = np.zeros((4, config.m2.length), np.int32)
    experiment = Experiment(
      *language_model.loss_and_init(model), [pipeline.whole(ids, 1 << widest)]
    )  # fmt: skip
    shapes = shape_check(experiment, config, mesh)
    if size[0] != 'tiny':  # it is called by its parameters without embeddings
      count = sum(math.prod(x.shape) for x in jax.tree.leaves(
        shapes['variables']['params']['decoder']))  # fmt: skip
      named = float(size[0][:-1]) * {'m': 1e6, 'b': 1e9}[size[0][-1]]
      assert count == pytest.approx(named, rel=0.25 if size[0] == '2b' else 0.1)
  model = decompress.make_model(config)
  options = config.decompress
  row = np.ones((4, options.room + options.text_bytes), np.int32)
  fields = dict.fromkeys(('targets', 'inputs', 'bytes', 'segments', 'positions', 'scored'), row)
  shape_check(Experiment(*language_model.loss_and_init(model), [fields]), config, mesh)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda c: c.m2.update(models=()), 'm2.models must name at least one'),
    (lambda c: c.m2.update(methods=(('greedy12', 16),)), 'greedy12 has no tokens of 16 bits'),
    (lambda c: c.m2.update(methods=(('nope', 8),)), "tokenizer 'nope' is unknown"),
    (lambda c: c.m2.update(models=(('odd', 1, 30, 4, 8),)), 'dim 30 is no multiple of 4 heads'),
    (lambda c: c.windows.update(methods=(('bytes', 8),)), 'has no windows'),
    (lambda c: c.decompress.update(methods=('bytes',)), 'has a vocabulary of its own'),
    (lambda c: c.decompress.update(room=0), 'decompress.room must be 1 or more'),
  ],
)
def test_bad_configs_are_named(change, message):
  config = equal_info.get_config('smoke,tables=m2+windows+decompress')
  change(config)
  with pytest.raises(InputError, match=message):
    recipe.check(config)


def test_models_refuse_sizes_below_one():
  config = equal_info.get_config('smoke')
  config.decompress.steps = 0
  with pytest.raises(InputError, match='steps must be 1 or more'):
    models.check(config.decompress, 'decompress')


def test_pictures_come_from_rows_alone():
  row = functools.partial(Row, 'm2', 'model=tiny,method=ac,v=256')
  columns = ('bits_per_byte', 'mflops_per_byte', 'bytes_per_step', 'uniform_bits_per_byte',
             'unigram_bits_per_byte')  # fmt: skip
  found = m2_plots.draw([row(column, 1.0) for column in columns])
  assert [len(found[name]) for name in ('m2.png', 'windows.png', 'decompress.png')] == [3, 0, 0]
