# SPDX-License-Identifier: Apache-2.0
"""Language models over tokens: what is scored, what it costs, what a compressed text gives away."""

import math
from fractions import Fraction

import jax
import numpy as np
import pytest

from configs import common, equal_info
from experiments import coders
from experiments.equal_info import decompress, m2, m2_text, pictures, recipe
from experiments.recipe import Run
from lib import stats
from lib.compression import byte_coders, byte_model, teacher_forced
from lib.compression.byte_stepper import ByteStepper
from lib.data import encoded, excerpts, pipeline, sources
from lib.errors import InputError
from lib.evals import ngram, token_scores
from lib.objectives.next_token import next_token
from lib.parallel import sharding
from lib.report.results import Row, Rows
from lib.tokenizers.characters import Characters
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.streams import SteppedAC
from lib.tokenizers.coding.tabulate import tabulate
from lib.tokenizers.coding.window_streams import SteppedEqualInfo
from lib.tokenizers.coding.windows import EqualInfo
from lib.train.experiment import Experiment
from tests.helpers import byte_models, intervals
from tests.helpers import shapes as shape_of

TEXT = byte_models.held_out()


@pytest.fixture(scope='module')
def windows16():
  return EqualInfo(tabulate(byte_models.NGram(TEXT[:20_000], 1), 16, 'greedy'), token_bits=8)


def test_encoded_documents_cover_their_bytes_and_make_their_batches(tmp_path, windows16):
  documents = [TEXT[i : i + 50] for i in range(0, 2000, 50)]
  run = Run(tmp_path, None)
  found = coders.encode(run, windows16, [*documents, b''])
  assert len(found) == len(documents) + 1
  assert found.bytes == 2000
  for i, document in enumerate(documents):
    assert found[i][0].tolist() == windows16.encode(document).tolist()
    assert found[i][1].sum() == len(document)
  assert not found[len(documents)].size
  options = {'batch_size': 4, 'length': 24, 'seed': 1}
  for pack in (True, False):
    kept = coders.encode(run, windows16, documents)
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
      return tokenizer.cover_batch(documents)

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
  batch = pipeline.batch_from_ids(np.zeros((1, 4), np.int32), 256)
  variables = jax.jit(byte_model.make(sizes).init)(jax.random.key(0), batch, jax.random.key(0))
  model = byte_model.ByteModel(sizes, variables)
  stepper = ByteStepper(model)
  documents = [TEXT[i : i + n] for i, n in ((0, 0), (1, 1), (2, 14), (3, 15), (40, 16), (60, 90))]
  found = list(teacher_forced.probabilities(model, documents))
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
    teacher_forced.encode_all(model, documents, 8), codec.cover_batch(documents), strict=True
  ):
    assert (one.size, one.crc, one.byte_lengths.sum()) == (other.size, other.crc, one.size)
    assert abs(one.ids.size - other.ids.size) <= 1
    if one.ids.tolist() == other.ids.tolist():  # else rounding moved a frequency
      assert one.byte_lengths.tolist() == other.byte_lengths.tolist()
      same += 1
  assert same >= 4
  stepped = SteppedEqualInfo(stepper, model.fingerprint, 32, 'greedy', 8)
  some = documents[1:]
  ahead = teacher_forced.TeacherForcedStepper(
    model, some, 5
  )  # windows are longer than that, and than M1 sees
  unstepped = SteppedEqualInfo(ahead, model.fingerprint, 32, 'greedy', 8)
  same = 0
  for one, other in zip(unstepped.cover_batch(some), stepped.cover_batch(some), strict=True):
    assert one.byte_lengths.sum() == one.size
    same += one.ids.tolist() == other.ids.tolist()
  assert same >= 4


def test_rows_come_shuffled_in_epochs_and_go_on_where_they_were():
  arrays = {'targets': np.arange(12)[:, None].repeat(3, 1), 'scored': np.ones((12, 3), np.int32)}
  data = iter(pipeline.batches_of_rows(arrays, batch_size=4, seed=0))
  seen = [next(data)['targets'][:, 0] for _ in range(6)]
  for epoch in (seen[:3], seen[3:]):
    assert sorted(np.concatenate(epoch).tolist()) == list(range(12))
  assert np.concatenate(seen[:3]).tolist() != np.concatenate(seen[3:]).tolist()
  fresh = iter(pipeline.batches_of_rows(arrays, batch_size=4, seed=0))
  next(fresh)
  state = fresh.get_state()
  expected = next(fresh)['targets']
  resumed = iter(pipeline.batches_of_rows(arrays, batch_size=4, seed=0))
  resumed.set_state(state)
  np.testing.assert_array_equal(next(resumed)['targets'], expected)


def test_a_loss_counts_only_what_is_scored():
  batch = pipeline.batch_from_ids(np.arange(6).reshape(2, 3), 6)
  nats = np.arange(1.0, 7.0).reshape(2, 3)

  class Fixed:
    apply = staticmethod(lambda variables, batch, key, mutable: (nats, {}))

  loss_fn = next_token(Fixed)[1]
  assert loss_fn({}, batch, None)[0] == pytest.approx(3.5)
  scored = {'scored': np.array([[0, 1, 0], [1, 0, 0]])}
  value, sums = loss_fn({}, batch | scored, None)
  assert value == pytest.approx(3.0)  # (2 + 4) / 2
  assert sums['tokens'] == sums['bytes'] == 2


def scores(nats, covered, documents):
  nats, covered = np.array(nats, float), np.array(covered)
  real, targets = np.ones_like(covered, bool), np.arange(covered.size).reshape(covered.shape)
  return token_scores.Scores(nats, covered, real, targets, np.array(documents))


def test_scores_are_ratios_of_sums_whose_units_are_documents():
  nats = [[1, 3], [2, 2], [1, 1], [4, 0]]
  one = scores(nats, [[0, 2], [1, 1], [0, 4], [1, 1]], [7, 3, 7, 9])
  found = stats.crossed(token_scores.per_byte([one]))
  assert found.value == pytest.approx(14 / 10)
  assert (found.n, found.over, found.df) == ('1×3', 'seeds×documents', None)
  # Documents 7, 3 and 9 have 6 nats of 6 bytes, 4 of 2 and 4 of 2.
  expected = stats.ratio([6, 4, 4], [6, 2, 2])
  assert found.sem == pytest.approx(expected.sem)
  other = scores(np.array(nats) + 1, one.bytes, one.documents)
  both = stats.crossed(token_scores.per_byte([one, other]))
  assert both.n == '2×3'
  assert both.value == pytest.approx((14 + 22) / 20)
  assert both.sem > found.sem  # the seeds differ as well


def test_windows_of_scores_are_rows_of_tokens_and_back():
  one = scores(np.zeros((2, 3)), np.zeros((2, 3), int), [0, 1])
  one.real[1, 2] = False
  windows_ = one.windows(2)
  assert windows_.tolist() == [[0, 1], [2, -1], [3, 4], [-1, -1]]
  assert one.of_windows(windows_.astype(float)).tolist() == [[0, 1, 2], [3, 4, -1]]
  right = np.array([[1.0, 0, 1], [1, 1, 0]])
  found = token_scores.by_position(right, one, 2)
  assert [each.value for each in found] == [pytest.approx(1), pytest.approx(1 / 2)]


def against(arms):
  """The rows of arms by row and column."""
  rows = Rows('m2')
  m2._add_against(rows, ('tiny', 1, 32, 2, 64), arms)
  return {(row.row, row.column): row for row in rows}


def test_arms_are_paired_by_document_so_what_they_share_cancels():
  rng = np.random.default_rng(0)
  documents = rng.normal(size=(1, 30)) * 5  # how hard each document is
  noise = lambda: rng.normal(size=(3, 30)) * 0.1
  found = {'bytes': 4 + documents + noise(), 'bpe12': 3 + documents + noise(),
           'ac': 4.5 + documents + noise()}  # fmt: skip
  arms = {coders.Method(name, 8 if name == 'ac' else None): one for name, one in found.items()}
  rows = against(arms)
  assert len(rows) == 4  # two references, each against two others
  row = rows['model=tiny,method=bpe12', 'bits_above_bytes']
  assert row.measured == pytest.approx(-1, abs=0.1)
  assert row.sem < 0.1 < documents.std() / 30**0.5
  assert (row.n, row.over) == ('3×30', 'seeds×documents')
  assert row.df > 4  # 2 arms × 2 seeds, and documents


def test_arms_that_hardly_vary_by_seed_have_no_part_in_the_noise_of_others():
  rng = np.random.default_rng(0)
  documents = np.zeros((3, 30)) + rng.normal(size=30)  # how hard each document is
  of_seed = lambda spread: rng.normal(size=(3, 1)) * spread + rng.normal(size=(3, 30)) * 1e-3
  noise = {'bytes': 0.5, 'greedy16': 0.5, 'numbered16': 0.5, 'ac': 0, 'static_ac': 0, 'gzip': 0}
  arms = {
    coders.Method(one, None if one == 'bytes' else 8): 4 + documents + of_seed(noise[one])
    for one in noise
  }
  rows = against(arms)
  learned = {method: one for method, one in arms.items() if noise[method.name]}
  for key, row in against(learned).items():
    assert (rows[key].sem, rows[key].df) == (row.sem, row.df)
  gzip, greedy = coders.Method('gzip', 8), coders.Method('greedy16', 8)
  row = rows['model=tiny,method=gzip,v=256', 'bits_above_greedy16']
  alone = stats.crossed(arms[gzip] - arms[greedy])
  assert row.estimate == alone
  assert ('model=tiny,method=ac,v=256', 'bits_above_greedy16') not in rows
  assert ('model=tiny,method=ac,v=256', 'bits_above_bytes') in rows


def test_the_windows_that_m2_reads_are_those_of_its_batches(tmp_path, windows16):
  config = equal_info.get_config('smoke')
  config.m2.update(batch_size=2, length=80, steps=40, example_bytes=40, train_bytes=800)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(coders, 'make', lambda *_: windows16)
    found = m2_text.Corpus(config, Run(tmp_path, None), coders.Method('greedy16', 8))
  assert found.window == 2
  every = found.windows(found.train)
  assert every.size == found.train.tokens.shape[1]
  kinds = set(map(tuple, every.tolist()))
  read = found.windows_read(3)
  assert set(map(tuple, read.tolist())) <= kinds  # none begins amid a window
  tokens = 40 * 2 * 80
  assert 0.9 * tokens < read.size <= tokens  # but for windows that a row's end cuts


def exact_windows(model, text, bits=16):
  """Greedy windows of a text by an arithmetic coder in fractions: [(code, bytes)]."""
  found, begin = [], 0
  while begin < len(text):
    low, width, size, code = Fraction(0), Fraction(1), 0, 0
    while begin + size < len(text):
      prefix = np.frombuffer(text[begin : begin + size] or b'\0', np.uint8)[None]
      row = arithmetic.quantise(model(prefix, np.array([size])))[0].tolist()
      symbol = text[begin + size]
      low += width * Fraction(row[symbol], row[-1])
      width *= Fraction(row[symbol + 1] - row[symbol], row[-1])
      v, n = intervals.shortest_enclosed(low, low + width)
      if n > bits:
        break
      size, code = size + 1, v << (bits - n)
    found.append((code, text[begin : begin + size]))
    begin += size
  return found


def read_by_trying(model, code, bits=16):
  """Appendix D.5: decode the code and zeros after it; the longest text whose code it is."""
  text, best = b'', b''
  low, width = Fraction(0), Fraction(1)
  while True:
    prefix = np.frombuffer(text or b'\0', np.uint8)[None]
    row = arithmetic.quantise(model(prefix, np.array([len(text)])))[0].tolist()
    place = (Fraction(code, 2**bits) - low) / width * row[-1]
    symbol = max(s for s in range(256) if row[s] <= place)
    low += width * Fraction(row[symbol], row[-1])
    width *= Fraction(row[symbol + 1] - row[symbol], row[-1])
    text += bytes([symbol])
    v, n = intervals.shortest_enclosed(low, low + width)
    if n > bits:
      return best
    if v << (bits - n) == code:
      best = text


def test_greedy_windows_are_those_of_a_coder_in_fractions_and_lose_text_in_both(windows16):
  model = byte_models.NGram(TEXT[:20_000], 1)  # that of windows16
  text = TEXT[30_000:30_400]
  expected = exact_windows(model, text)
  codes = windows16.codes(windows16.encode(text)).tolist()
  assert codes == [code for code, _ in expected]
  lengths = windows16.cover(text)[1]
  assert lengths[lengths > 0].tolist() == [len(window) for _, window in expected]
  back = [read_by_trying(model, code) for code in codes]
  assert b''.join(back) == windows16.decode(windows16.encode(text))
  same = [one == other for one, (_, other) in zip(back, expected, strict=True)]
  assert 0.4 < np.mean(same) < 0.994


@pytest.fixture(scope='module')
def stand_in(tmp_path_factory, windows16):
  """A smoke config whose tokenizers are made from an n-gram: no M1 is trained."""
  config = equal_info.get_config('smoke')
  run = Run(tmp_path_factory.mktemp('m2'), sharding.make_mesh({'data': -1}, jax.devices()[:1]))
  make = coders.make
  patch = pytest.MonkeyPatch()
  patch.setattr(
    coders, 'make',
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
  room, size = decompress.room(config.decompress), config.decompress.text_bytes
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


def test_tokens_change_the_predicted_bytes_and_the_control_ignores_them(stand_in):
  config, run = stand_in
  found = decompress.make_texts(config, run, 'test', 8)
  model = decompress.make_model(config)
  rows = decompress.make_rows(config, found, 'greedy24')
  variables = jax.jit(model.init)(jax.random.key(0), rows, jax.random.key(0))
  right, nats = decompress.read(model, variables, rows)
  assert right.shape == nats.shape == found.data.shape
  other = rows | {'inputs': rows['inputs'].copy()}
  other['inputs'][:, 1] = 256 + (other['inputs'][:, 1] + 1) % 256
  assert (np.abs(decompress.read(model, variables, other)[1] - nats) > 1e-7).all(axis=1).any()
  _, sums = next_token(model)[1](variables, rows, jax.random.key(0))
  assert float(sums['nats'] / sums['tokens']) == pytest.approx(nats.mean(), rel=1e-4)


def test_a_difference_is_paired_by_seed_and_document_and_has_its_interval():
  config = equal_info.get_config('smoke')
  half = config.decompress.text_bytes // 2
  documents = np.arange(60) // 3
  rng = np.random.default_rng(0)
  control = np.zeros((2, 60, 2 * half))
  control[:, :, :half] = rng.integers(0, 2, (2, 60, 1))
  better = control.copy()
  better[:, :, half:] = 1

  def find(arms):
    rows = Rows('decompress')
    decompress.add_against(rows, config, documents, {decompress.CONTROL: control, **arms})
    return {(row.row, row.column): row for row in rows}

  rows = find({'ac': better})
  whole = rows['method=ac,v=256', 'accuracy_above_control']
  assert (whole.measured, whole.sem) == (0.5, pytest.approx(0.0))  # texts differ, pairs do not
  assert (whole.n, whole.over) == ('2×20', 'seeds×documents')
  assert rows['method=ac,v=256', 'accuracy_above_control_first_half'].measured == 0
  noisy = rng.integers(0, 2, control.shape).astype(float)
  row = find({'ac': noisy})['method=ac,v=256', 'accuracy_above_control_first_half']
  low, high = map(float, row.note.split('interval ')[1].split(';')[0].split(' to '))
  assert low < row.measured < high
  assert high - low > 2 * 1.96 * row.sem  # Student's t of few seeds


def test_errors_of_accuracy_are_over_documents_not_texts():
  documents = np.arange(400) // 20
  right = np.repeat(np.random.default_rng(1).random((1, 20, 1)) < 0.5, 20, axis=1).astype(float)
  found = stats.crossed(decompress.contributions(right, documents))
  by_text = right[0, :, 0].std(ddof=1) / 400**0.5
  assert found.sem == pytest.approx(by_text * 20**0.5, rel=0.05)


def test_trivial_guesses_are_the_most_frequent_of_each_position():
  known = ngram.windows(np.array([3, 1, 3, 2, 0, 2]), np.array([4, 2]), 2)
  held_out = ngram.windows(np.array([3, 0, 3, 2]), np.array([4]), 2)
  assert ngram.guessed(known, held_out).tolist() == [1.0, 0.5]


def test_stretches_lie_within_documents_and_spread_over_them():
  config = equal_info.get_config('smoke')
  found = excerpts.of_split(config.data.source, 'test', length=64, total=6400)
  assert len(found) == 100
  assert {len(one) for one in found.texts} == {64}
  documents = sources.open_source(config.data.source, 'test')
  assert all(text in documents[i] for text, i in zip(found.texts, found.documents, strict=True))
  assert found.distinct == sum(len(documents[i]) >= 64 for i in range(len(documents)))
  with pytest.raises(InputError, match=r'no document of stdlib/prose \(test\)'):
    excerpts.of_split(config.data.source, 'test', length=10**9, total=1)


@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_builds_and_steps(scale):
  config = equal_info.get_config(scale)
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 1}, jax.devices()[:4])
  widest = max(bits for _, bits in config.m2.methods)
  for size in dict.fromkeys((config.m2.models[0], config.m2.models[-1])):
    model = m2.make_model(config, m2.sized(config, size), 1 << widest)
    ids = np.zeros((4, config.m2.length), np.int32)
    experiment = Experiment(
      *next_token(model), [pipeline.batch_from_ids(ids, 1 << widest)]
    )  # fmt: skip
    shapes = shape_of.check(experiment, mesh)
    if size[0] != 'tiny':  # it is called by its parameters without embeddings
      count = sum(math.prod(x.shape) for x in jax.tree.leaves(
        shapes['variables']['params']['decoder']))  # fmt: skip
      named = float(size[0][:-1]) * {'m': 1e6, 'b': 1e9}[size[0][-1]]
      assert count == pytest.approx(named, rel=0.25 if size[0] == '2b' else 0.1)
  model = decompress.make_model(config)
  options = config.decompress
  row = np.ones((4, options.length), np.int32)
  fields = dict.fromkeys(('targets', 'inputs', 'bytes', 'segments', 'positions', 'scored'), row)
  shape_of.check(Experiment(*next_token(model), [fields]), mesh)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda c: c.m2.update(models=()), 'm2.models must be a tuple of 1 or more'),
    (lambda c: c.m2.update(methods=(('greedy12', 16),)), 'greedy12 has no tokens of 16 bits'),
    (lambda c: c.m2.update(methods=(('nope', 8),)), "tokenizer 'nope' is unknown"),
    (lambda c: c.m2.update(models=(('odd', 1, 30, 4, 8),)), 'dim 30 is not a multiple of 4 heads'),
    (lambda c: c.windows.update(methods=(('bytes', 8),)), 'has no windows'),
    (lambda c: c.decompress.update(methods=('bytes',)), 'has its own vocabulary'),
    (lambda c: c.decompress.update(length=16), 'decompress.length must be above'),
    (lambda c: c.m2.update(equal_text=(('top12', 12),)), "'top12' is not one of m2.methods"),
  ],
)
def test_bad_configs_are_named(change, message):
  config = equal_info.get_config('smoke,tables=m2+windows+decompress')
  change(config)
  with pytest.raises(InputError, match=message):
    recipe.RECIPE.check(config)


def test_pictures_come_from_rows_alone():
  where = {'model': 'tiny', 'method': 'ac', 'v': 256}
  columns = ('bits_per_byte', 'mflops_per_byte', 'bytes_per_step', 'uniform_bits_per_byte',
             'unigram_bits_per_byte')  # fmt: skip
  text = Row('m2', {'model': 'tiny', 'method': 'bytes', 'budget': 'text'}, 'bits_per_byte', 1.0)
  rows = [*(Row('m2', where, column, 1.0) for column in columns), text]
  drawn = [pictures.m2(rows), pictures.windows(rows), pictures.decompress(rows)]
  assert [len(picture.panels) for picture in drawn] == [2, 0, 0]


def test_tokenizers_that_lose_text_are_marked_in_pictures():
  where = {'model': 'tiny', 'method': 'greedy16', 'v': '256'}
  assert pictures.label(where) == 'greedy16, v=256 (lossy)'
  where = {'method': 'ac_of_another_text', 'v': '256'}
  assert pictures.label(where) == 'ac_of_another_text, v=256'
  lossless = [coders.Method(f'{kind}16', 16).lossless for kind in byte_coders.WINDOWS]
  assert lossless == [False, True, True, True]
