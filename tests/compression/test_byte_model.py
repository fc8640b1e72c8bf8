# SPDX-License-Identifier: Apache-2.0
"""M1: one text gives one answer, whatever is beside it, in whichever process, at any length."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from lib import tokenizers
from lib.compression import byte_model, byte_stepper
from lib.compression.byte_model import ByteModel, Sizes
from lib.compression.byte_stepper import ByteStepper
from lib.errors import InputError
from lib.tokenizers import base, files
from lib.tokenizers.characters import Characters
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.model import MemoizedModel
from lib.tokenizers.coding.streams import SteppedAC
from lib.tokenizers.coding.window_streams import SteppedEqualInfo
from tests.helpers import byte_models

ROOT = pathlib.Path(__file__).parents[2]
SIZES = Sizes(layers=2, dim=16, heads=2, mlp_dim=24, context=16, streams=8, position='t5')
TEXT = byte_models.held_out()[:90]  # far longer than the context


def random_model(seed=0, **changes):
  """An M1 whose weights are random, but large enough that the text matters."""
  sizes = dataclasses.replace(SIZES, **changes)
  shapes = jax.eval_shape(lambda: byte_model.variables(sizes))
  rng = np.random.default_rng(seed)
  draw = lambda x: rng.normal(size=x.shape).astype(np.float32) * (0.5 if len(x.shape) > 1 else 1)
  return ByteModel(sizes, jax.tree.map(draw, dict(shapes)))


@pytest.fixture(scope='module')
def model():
  return random_model()


def stepped(stepper, text, lane, others=None):
  """Probabilities after each byte of a text in a lane; other lanes read what `others` draws."""
  stepper.reset(np.arange(stepper.streams) == lane)
  rows = []
  for byte in text:
    symbols = np.zeros(stepper.streams, np.uint8)
    if others is not None:
      symbols = others.integers(0, 256, stepper.streams).astype(np.uint8)
      drawn = others.random(stepper.streams) < 0.1
      drawn[lane] = False
      stepper.reset(drawn)
    symbols[lane] = byte
    rows.append(stepper.step(symbols)[lane].copy())
  return np.stack(rows)


@pytest.mark.parametrize('room', [4, 16])
def test_results_depend_on_the_text_alone(model, room, monkeypatch):
  monkeypatch.setattr(byte_stepper, 'LEAST_ROOM', room)  # steps of three shapes, or of one
  quiet = stepped(ByteStepper(model), TEXT, 0)
  for lane, seed in ((0, 1), (3, 2), (7, 3)):
    used = ByteStepper(model)
    stepped(used, TEXT[::-1], lane, np.random.default_rng(9))  # what was read before is forgotten
    found = stepped(used, TEXT, lane, np.random.default_rng(seed))
    np.testing.assert_array_equal(found, quiet)


@pytest.mark.parametrize(('position', 'room'), [('t5', 16), ('t5', 4), ('relative', 4)])
def test_reading_at_once_and_byte_by_byte_agree_beyond_the_context(position, room, monkeypatch):
  monkeypatch.setattr(byte_stepper, 'LEAST_ROOM', room)
  model = random_model(position=position)
  found = stepped(ByteStepper(model), TEXT[:50], 2)
  lengths = np.arange(51, dtype=np.int32)
  prefixes = np.zeros((51, 50), np.uint8)
  for n in lengths:
    prefixes[n, :n] = np.frombuffer(TEXT[:n], np.uint8)
  whole = model(prefixes, lengths)
  np.testing.assert_allclose(whole[1:], found, atol=2e-5)
  np.testing.assert_allclose(whole[0], ByteStepper(model).start(), atol=2e-5)
  np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
  steps = np.abs(np.diff(whole, axis=0)).max(axis=1)
  assert steps.min() > 1e-4  # every byte matters


def test_the_context_holds_the_newer_half_or_more(model):
  held = model.visible_bytes(np.arange(60))
  assert held[:16].tolist() == list(range(16))
  assert held[16:].min() == 8
  assert held.max() == 15  # and the begin: 16 tokens
  # What lies before it is forgotten.
  prefixes = np.zeros((2, 30), np.uint8)
  prefixes[:] = np.frombuffer(TEXT[:30], np.uint8)
  prefixes[1, : 30 - held[30]] = 7
  rows = model(prefixes, np.full(2, 30, np.int32))
  np.testing.assert_array_equal(rows[0], rows[1])


def test_a_saved_model_is_the_same_model(model, tmp_path):
  model.save(tmp_path / 'm1')
  again = ByteModel.load(tmp_path / 'm1')
  assert again.sizes == model.sizes
  assert again.fingerprint == model.fingerprint != random_model(1).fingerprint
  assert again.fingerprint != random_model(streams=4).fingerprint
  np.testing.assert_array_equal(
    stepped(ByteStepper(again), TEXT, 1), stepped(ByteStepper(model), TEXT, 1)
  )
  content = (tmp_path / 'm1').read_bytes()
  (tmp_path / 'm1').write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  with pytest.raises(InputError, match='damaged'):
    ByteModel.load(tmp_path / 'm1')
  tokenizers.save(Characters(), tmp_path / 'bytes')
  with pytest.raises(InputError, match="contains a 'characters', not a byte model"):
    ByteModel.load(tmp_path / 'bytes')
  files.write(tmp_path / 'odd', byte_model.FAMILY, {'sizes': base.byte_array(b'{}')})
  with pytest.raises(InputError, match='odd contains arrays that are not a valid M1'):
    ByteModel.load(tmp_path / 'odd')


def test_weights_of_other_sizes_are_refused(model):
  with pytest.raises(InputError, match='a context of 2 and 8 streams'):
    random_model(context=2)
  other = {**model.state(), 'sizes': random_model(dim=8).state()['sizes']}
  with pytest.raises(InputError, match='do not fit its sizes'):
    ByteModel.from_state(other)


def test_each_text_is_asked_for_once(model):
  asked = []

  def count(prefixes, lengths):
    asked.extend(row[:n].tobytes() for row, n in zip(prefixes, lengths))
    return model(prefixes, lengths)

  remembered = MemoizedModel(count)
  prefixes = np.array([[97, 98], [97, 0], [97, 98], [0, 0]], np.uint8)
  lengths = np.array([2, 1, 2, 0], np.int32)
  first, again = remembered(prefixes, lengths), remembered(prefixes[::-1], lengths[::-1])
  np.testing.assert_array_equal(first, again[::-1])
  np.testing.assert_array_equal(first[0], first[2])
  assert sorted(asked) == [b'', b'a', b'ab']


def codecs(model):
  stepper = ByteStepper(model)
  return {
    'ac': SteppedAC(stepper, model.fingerprint),
    'exact32': SteppedEqualInfo(stepper, model.fingerprint, 32, token_bits=8),
  }


DECODE = """
import json, sys
from lib import tokenizers
rows = json.loads(sys.stdin.read())
for path, ids in rows.items():
  codec = tokenizers.load(path)
  print(json.dumps([data.hex() for data, _ in codec.decode_all(ids)]))
"""


def test_another_process_with_another_batch_decodes(model, tmp_path):
  documents = [TEXT, b'', TEXT[:1], bytes(range(256)), TEXT[5:40], b'\xff' * 33]
  sent, expected = {}, []
  for name, codec in codecs(model).items():
    tokenizers.save(codec, tmp_path / name)
    coded = codec.cover_batch(documents)
    order = [4, 3, 0, 1]  # fewer, in another order, in other lanes
    sent[str(tmp_path / name)] = [coded[i].ids.tolist() for i in order]
    expected.append([documents[i].hex() for i in order])
  done = subprocess.run(
    [sys.executable, '-c', DECODE], input=json.dumps(sent), cwd=ROOT, capture_output=True,
    text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert [json.loads(line) for line in done.stdout.splitlines()] == expected


def test_codecs_keep_their_m1_in_their_file(model, tmp_path):
  for name, codec in codecs(model).items():
    tokenizers.save(codec, tmp_path / name)
    again = tokenizers.load(tmp_path / name)
    assert again.fingerprint == codec.fingerprint
    assert type(again) is type(codec)
  # A plain tokenizer is kept as ever.
  tokenizers.save(Characters(), tmp_path / 'bytes')
  assert isinstance(tokenizers.load(tmp_path / 'bytes'), Characters)
  toy = SteppedAC(byte_models.Stepping(byte_models.Uniform(), 2), 'uniform')
  with pytest.raises(InputError, match='cannot be saved with an M1 that is a Stepping'):
    tokenizers.save(toy, tmp_path / 'toy')
  assert not (tmp_path / 'toy').exists()


def test_any_probabilities_of_m1_can_be_coded(model):
  rows = stepped(ByteStepper(model), bytes(range(0, 256, 7)), 0)
  assert (np.diff(arithmetic.quantise(rows).astype(int)) >= 1).all()
