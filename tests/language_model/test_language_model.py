# SPDX-License-Identifier: Apache-2.0
"""A trained model: its folder, its scores, its samples and its tables."""

import dataclasses
import functools
import hashlib
import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lib import language_model
from lib.compression.byte_model import ByteModel, Sizes
from lib.compression.byte_model import variables as byte_model_variables
from lib.compression.byte_stepper import ByteStepper
from lib.embeddings.fixed import FixedRows
from lib.embeddings.learned import Learned
from lib.embeddings.lexinvariant import AnnealedLexinvariant, Lexinvariant
from lib.embeddings.partial import Interchangeable, PartlyRandom, PermutedIds
from lib.embeddings.short_conv import ShortConv
from lib.errors import InputError
from lib.glyphs import pixel_rows
from lib.language_model import Provenance, Tables, TrainedModel, modules
from lib.models.decoder import Decoder, LanguageModel
from lib.parallel import sharding
from lib.tokenizers.characters import Characters
from lib.tokenizers.coding.baselines import GZip
from lib.tokenizers.coding.streams import SteppedAC
from tests.helpers import byte_models, hostile

DIM, CONTEXT = 16, 10
BPE = hostile.family('bpe')
V = BPE.vocab_size
TEXTS = [hostile.TEXT[:60], b'', b'the words', hostile.TEXT[7:29]]
ROWS = pixel_rows.gaussian_rows(V, 24, seed=0)
EMBEDDINGS = {
  'learned': Learned(V, DIM, init_std=0.3, logit_scale=0.25),
  'untied': Learned(V, DIM, tied=False, bias=True, z_loss=1e-4, dtype=jnp.bfloat16),
  'frozen': FixedRows(V, DIM, lambda seed: ROWS[:, :DIM]),
  'frozen of another width': FixedRows(V, DIM, lambda seed: ROWS),
  'trained from rows': FixedRows(V, DIM, lambda seed: ROWS[:, :DIM], frozen=False),
  'lexinvariant': Lexinvariant(V, DIM),
  'lexinvariant per sequence': Lexinvariant(V, DIM, row_sampling='per_sequence', row_dim=24),
  'annealed': AnnealedLexinvariant(V, DIM),
  'permuted': PermutedIds(Learned(V, DIM)),
  'mixed': PartlyRandom(V, DIM),
  'interchangeable': Interchangeable(V, DIM),
  'preceding': ShortConv(Learned(V, DIM, tied=False), 2),
}
PROVENANCE = Provenance(
  commit='0123abc', config={'steps': 5, 'rules': ['.*']}, text='stdlib/prose', text_digest='ab',
  seeds=(3, 4), steps=5,
)  # fmt: skip


@functools.cache
def filled(module, seed=0):
  """Random variables of a module, without compiling anything."""
  random = np.random.default_rng(seed)

  def fill(leaf):
    if leaf.dtype == np.int32:
      return random.integers(-(2**31), 2**31, leaf.shape, np.int32)
    return random.normal(scale=0.3, size=leaf.shape).astype(leaf.dtype)

  batch = dict.fromkeys(('inputs', 'targets', 'segments', 'positions'), jnp.zeros((1, 2), int))
  key = jax.random.key(0)
  return jax.tree.map(fill, dict(jax.eval_shape(lambda: module.init(key, batch, key))))


def around(embedding):
  decoder = Decoder(layers=1, dim=DIM, heads=2, mlp_dim=16, position='rotary', norm='rms')
  return LanguageModel(embedding, decoder)


@functools.cache
def make(kind='learned'):
  module = around(EMBEDDINGS[kind])
  return TrainedModel(module, filled(module), BPE, CONTEXT, provenance=PROVENANCE)


def same_bits(one, other):
  paths = lambda tree: dict(jax.tree_util.tree_leaves_with_path(tree))
  a, b = paths(one), paths(other)
  assert a.keys() == b.keys()
  for path, leaf in a.items():
    assert leaf.dtype == b[path].dtype, path
    assert np.asarray(leaf).tobytes() == np.asarray(b[path]).tobytes(), path


# --- the folder -----------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', EMBEDDINGS)
def test_a_model_comes_back_from_its_folder(kind, tmp_path):
  model = make(kind)
  model.save(tmp_path / 'new' / 'model')
  files = sorted(path.name for path in (tmp_path / 'new' / 'model').iterdir())
  assert files == ['model.json', 'tokenizer', 'weights.safetensors']
  modes = {path.stat().st_mode & 0o777 for path in (tmp_path / 'new' / 'model').iterdir()}
  (tmp_path / 'plain').touch()
  assert modes == {(tmp_path / 'plain').stat().st_mode & 0o777}  # safetensors' own would be 0600
  loaded = language_model.load(tmp_path / 'new' / 'model')
  same_bits(loaded.variables, model.variables)
  assert loaded.module == model.module  # so what is compiled for one serves the other
  assert hash(loaded.module) == hash(model.module)
  assert loaded.provenance == PROVENANCE
  assert (loaded.context, loaded.bos) == (CONTEXT, V)
  assert loaded.parameters == 4 * DIM**2 + 2 * DIM * 16 + 3 * DIM  # attention, MLP, three norms
  assert loaded.tokenizer.fingerprint == BPE.fingerprint
  assert loaded.fingerprint == model.fingerprint


@pytest.mark.parametrize('family', hostile.FAMILIES)
def test_every_tokenizer_comes_back_with_its_model(family, tmp_path):
  tokenizer = hostile.family(family)
  check_tokenizer(tokenizer, tmp_path)


def test_a_tokenizer_with_a_byte_model_comes_back_with_its_model(tmp_path):
  sizes = Sizes(layers=1, dim=8, heads=1, mlp_dim=8, context=16, streams=2)
  byte_model = ByteModel(sizes, filled_like(byte_model_variables, sizes))
  check_tokenizer(SteppedAC(ByteStepper(byte_model), byte_model.fingerprint, 8), tmp_path)


def filled_like(make_variables, *args):
  shapes = dict(jax.eval_shape(lambda: make_variables(*args)))
  return jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype), shapes)


def check_tokenizer(tokenizer, folder):
  module = around(Learned(4096, DIM))  # of more rows than the tokenizer has ids, but for one family
  if tokenizer.vocab_size > 4096:
    module = around(Learned(tokenizer.vocab_size, DIM))
  TrainedModel(module, filled(module), tokenizer, CONTEXT).save(folder / 'model')
  loaded = language_model.load(folder / 'model')
  assert type(loaded.tokenizer) is type(tokenizer)
  assert loaded.tokenizer.fingerprint == tokenizer.fingerprint
  assert loaded.bos == tokenizer.vocab_size


def test_each_array_keeps_its_dtype(tmp_path):
  module = around(EMBEDDINGS['learned'])
  variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), filled(module))
  variables['params']['embedding']['bos'] = np.ones(DIM, np.float16)
  TrainedModel(module, variables, None, CONTEXT).save(tmp_path / 'model')
  loaded = language_model.load(tmp_path / 'model')
  same_bits(loaded.variables, variables)
  assert loaded.tokenizer is None
  with pytest.raises(InputError, match='has no tokenizer'):
    loaded.token_loss([b'a'])


@pytest.fixture
def folder(tmp_path):
  make().save(tmp_path / 'model')
  return tmp_path / 'model'


@pytest.mark.parametrize('name', ['model.json', 'weights.safetensors', 'tokenizer'])
def test_any_damage_is_named(name, folder):
  whole = (folder / name).read_bytes()
  for place in (0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 2):
    for mask in (1, 0x80):
      damaged = bytearray(whole)
      damaged[place] ^= mask
      (folder / name).write_bytes(damaged)
      with pytest.raises(InputError, match=name):
        language_model.load(folder)
  for cut in (0, 7, len(whole) - 1):
    (folder / name).write_bytes(whole[:cut])
    with pytest.raises(InputError, match=name):
      language_model.load(folder)
  (folder / name).unlink()
  with pytest.raises(InputError, match=f'cannot read .*{name}'):
    language_model.load(folder)


def test_what_is_no_model_is_named(tmp_path):
  with pytest.raises(InputError, match='is not a trained model'):
    language_model.load(tmp_path)
  (tmp_path / 'model.json').write_text('{"format": "other"}')
  with pytest.raises(InputError, match=r"format should be 'language-model'"):
    language_model.load(tmp_path)
  (tmp_path / 'model.json').write_text('[' * 100_000)
  with pytest.raises(InputError, match='not JSON'):
    language_model.load(tmp_path)


def rewrite(folder, change):
  """Changes a model.json and makes its checksums right: what an attacker could do."""
  told = json.loads((folder / 'model.json').read_text())
  del told['sha256']
  for name in told['files']:
    content = (folder / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    told['files'][name] = {'bytes': len(content), 'sha256': digest}
  change(told)
  text = json.dumps(told, sort_keys=True)
  told['sha256'] = hashlib.sha256(text.encode()).hexdigest()
  (folder / 'model.json').write_text(json.dumps(told))


def embedding_of(told):
  return told['module']['fields']['embedding']


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda told: embedding_of(told).update({'class': 'os.system'}), "'os.system' is unknown"),
    (lambda told: embedding_of(told).update({'class': ['Learned']}), 'is unknown'),
    (lambda told: embedding_of(told).update(more=1), 'a class and its fields'),
    (lambda told: embedding_of(told)['fields'].update(rows='x'), "Learned has no field 'rows'"),
    (lambda told: embedding_of(told)['fields'].update(parent=None), "no field 'parent'"),
    (lambda told: embedding_of(told)['fields'].pop('dim'), 'Learned cannot be made'),
    (lambda told: embedding_of(told)['fields'].update(dim=8), 'does not describe a valid model'),
    (lambda told: embedding_of(told)['fields'].update(dim='x'), 'does not describe a valid model'),
    (lambda told: embedding_of(told)['fields'].update(dtype={'dtype': 'O'}), "'O' is not"),
    (lambda told: embedding_of(told)['fields'].update(bias=True), 'lack params/embedding'),
    (lambda told: embedding_of(told)['fields'].update(vocab_size=10**13), 'a valid model'),
    (lambda told: told.update(module=embedding_of(told)), 'a Learned, not a LanguageModel'),
    (lambda told: told.update(module=7), 'a class and its fields'),
    (lambda told: told.update(context=1), 'context of a model must be 2'),
    (lambda told: told.update(context='9'), 'must be whole numbers'),
    (lambda told: told.update(provenance={'author': 1}), 'does not describe a valid model'),
    (lambda told: told.update(version=2), 'reads version 1'),
    (lambda told: told.pop('bos'), 'lacks bos'),
    (lambda told: told['files'].update({'../model/tokenizer': {}}), 'and no others'),
    (lambda told: told['files'].update({'/etc/passwd': {}}), 'and no others'),
    (lambda told: told.update(files=[]), 'must name the files'),
    (lambda told: told['files'].update(tokenizer='x'), 'tokenizer is damaged'),
  ],
)  # fmt: skip
def test_a_description_with_right_checksums_is_still_checked(change, message, folder):
  rewrite(folder, change)
  with pytest.raises(InputError, match=message) as caught:
    language_model.load(folder)
  assert 'model' in str(caught.value)
  assert '\n' not in str(caught.value)


def test_weights_with_right_checksums_are_still_checked(folder):
  file, whole = folder / 'weights.safetensors', (folder / 'weights.safetensors').read_bytes()
  for content in (b'', whole[:50], b'\xff' * 40, whole + b'x'):
    file.write_bytes(content)
    rewrite(folder, lambda told: None)
    with pytest.raises(InputError, match='is not a safetensors file'):
      language_model.load(folder)
  file.write_bytes(whole)
  arrays = load_file(file)
  name = 'params/embedding/table'
  for changed, message in (
    ({name: arrays[name].astype(np.int32)}, 'is I32, not float32'),
    ({name: arrays[name].T.copy()}, r'of shape \(16, 300\); the model wants \(300, 16\)'),
    ({'params/../bos': arrays[name]}, 'contain params/../bos'),
    ({f'{name}/more': arrays[name]}, 'contain params/embedding/table/more'),
  ):
    save_file(arrays | changed, file)
    rewrite(folder, lambda told: None)
    with pytest.raises(InputError, match=message):
      language_model.load(folder)
  save_file({key: array for key, array in arrays.items() if key != name}, file)
  rewrite(folder, lambda told: None)
  with pytest.raises(InputError, match=f'lack {name}'):
    language_model.load(folder)


def test_a_folder_with_names_of_an_earlier_version_is_loaded(tmp_path):
  fixed = FixedRows(V, DIM, lambda seed: ROWS[:, :DIM])
  for embedding in (ShortConv(fixed, 2), Learned(V, DIM, tied=False, bias=True, logit_scale=0.5)):
    module = around(embedding)
    saved = TrainedModel(module, filled(module), None, CONTEXT, V)
    saved.save(folder := tmp_path / type(embedding).__name__)
    old = {new: old for old, new in modules.RENAMED.items()}
    weights = load_file(folder / 'weights.safetensors')
    renamed = {'/'.join(old.get(part, part) for part in name.split('/')): array
               for name, array in weights.items()}  # fmt: skip
    assert any(name.endswith('/begin') for name in renamed)
    save_file(renamed, folder / 'weights.safetensors')

    def earlier(value):
      if isinstance(value, dict):
        return {old.get(name, name): earlier(one) for name, one in value.items()}
      return old.get(value, value) if isinstance(value, str) else value

    rewrite(folder, lambda facts: facts.update(module=earlier(facts['module'])))
    loaded = language_model.load(folder)
    assert loaded.module == saved.module
    same_bits(loaded.variables, saved.variables)


def test_nothing_is_written_over_and_a_failed_save_leaves_nothing(folder, tmp_path):
  before = (folder / 'model.json').read_bytes()
  with pytest.raises(InputError, match='there is something at'):
    make('untied').save(folder)
  assert (folder / 'model.json').read_bytes() == before
  toy = SteppedAC(byte_models.Stepping(byte_models.Uniform(), 2), 'uniform', 8)
  module = around(Learned(256, DIM))
  with pytest.raises(InputError, match='cannot be saved with an M1'):
    TrainedModel(module, filled(module), toy, CONTEXT).save(tmp_path / 'other')
  odd = dataclasses.replace(make(), provenance=Provenance(config={'of': np.zeros(2)}))
  with pytest.raises(InputError, match='must be JSON-like'):
    odd.save(tmp_path / 'other')
  assert [path.name for path in tmp_path.iterdir()] == ['model']


class Signs(Learned):
  """An embedding of a user's own."""


def test_a_class_of_ones_own_is_registered_first(tmp_path):
  module = around(Signs(V, DIM))
  model = TrainedModel(module, filled(module), BPE, CONTEXT)
  with pytest.raises(InputError, match='class Signs cannot be saved'):
    model.save(tmp_path / 'model')
  language_model.register(Signs)
  try:
    model.save(tmp_path / 'model')
    assert type(language_model.load(tmp_path / 'model').module.embedding) is Signs
    with pytest.raises(InputError, match='another module class Signs'):
      language_model.register(type('Signs', (Learned,), {}))
  finally:
    del modules.REGISTRY['Signs']
  with pytest.raises(InputError, match="class 'Signs' is unknown"):
    language_model.load(tmp_path / 'model')


def test_fields_that_are_no_data_are_named():
  class Odd(nn.Module):
    rows: object

  language_model.register(Odd)
  try:
    assert modules.from_json(modules.to_json(Odd((1, (2.5, None))))) == Odd((1, (2.5, None)))
    for value in (lambda: 1, math.nan, b'bytes', {1: 2}, np.zeros(2)):
      with pytest.raises(InputError, match='field rows of Odd'):
        modules.to_json(Odd(value))
  finally:
    del modules.REGISTRY['Odd']


def test_a_mesh_gets_its_parts_of_each_array(folder):
  mesh = sharding.make_mesh({'data': 2, 'fsdp': 2, 'tensor': 2})
  loaded = language_model.load(folder, mesh)
  same_bits(jax.device_get(loaded.variables), make().variables)
  table = loaded.variables['params']['embedding']['table']
  assert table.sharding.shard_shape(table.shape) == (V // 2, DIM // 2)
  for one, other in zip(loaded.token_loss(TEXTS), make().token_loss(TEXTS)):
    np.testing.assert_allclose(one.nats, other.nats, rtol=1e-4, atol=1e-5)


# --- scores ---------------------------------------------------------------------------------------


@functools.cache
def logits_of(module):
  return jax.jit(functools.partial(module.apply, method='logits'))


def plain(model, ids, place=0, seed=0, first=V):
  """Log-probabilities [n, V] of what follows `first` and ids but the last, by one forward pass."""
  rest = [0] * (CONTEXT - len(ids))  # which nothing before them sees, and which saves a compilation
  inputs = np.array([[first, *ids[:-1], *rest]], np.int32)
  ones = np.ones_like(inputs)
  batch = {
    'inputs': inputs, 'targets': 0 * ones, 'segments': ones,
    'positions': np.arange(inputs.shape[1], dtype=np.int32)[None],
  }  # fmt: skip
  key = jax.random.fold_in(jax.random.key(seed), place)
  logits = logits_of(model.module)(model.variables, batch, key)[0, : len(ids)]
  return jax.nn.log_softmax(np.asarray(logits, np.float64))


@pytest.mark.parametrize('kind', ['learned', 'lexinvariant'])
def test_a_short_text_is_scored_by_the_plain_forward_pass(kind):
  model = make(kind)
  texts = [b'the words', b' the ']
  for place, (text, loss) in enumerate(zip(texts, model.token_loss(texts, seed=5))):
    ids = BPE.encode(text)
    assert 1 < len(ids) <= CONTEXT
    assert loss.ids.tolist() == ids.tolist()
    assert loss.bytes.tolist() == BPE.byte_lengths(ids).tolist()
    expected = -plain(model, ids, place, 5)[np.arange(len(ids)), ids]
    assert loss.nats.dtype == np.float64
    np.testing.assert_allclose(loss.nats, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('context', [CONTEXT, 7])
def test_a_long_text_is_scored_in_windows_of_half_stride(context):
  model = dataclasses.replace(make(), context=context)
  long = bytes(range(32, 100)) + hostile.TEXT[:21]
  texts = [b'the words', long, b'']
  losses = model.token_loss(texts)
  assert losses[2].nats.size == 0
  ids = BPE.encode(long)
  assert len(ids) > 4 * context
  # Token by token: the window it belongs to begins half a context after the one before.
  expected = []
  for place, target in enumerate(ids):
    number = max(0, -(-(place + 1 - context) // (context // 2)))
    start = number * (context // 2)
    seen = [model.bos, *ids][start : place + 1]
    assert len(seen) <= context
    assert number == 0 or len(seen) > context // 2
    expected.append(-plain(make(), [*seen[1:], target], first=seen[0])[-1, target])
  np.testing.assert_allclose(losses[1].nats, expected, rtol=1e-4, atol=1e-5)


def test_all_texts_are_scored_alone():
  model = make()
  together = model.token_loss([*TEXTS, hostile.TEXT])
  for text, loss in zip([*TEXTS, hostile.TEXT], together):
    [alone] = model.token_loss([text])
    np.testing.assert_allclose(loss.nats, alone.nats, rtol=1e-4, atol=1e-5)
    assert loss.bytes.sum() == len(text)
  symbols = dataclasses.replace(model, tokenizer=None)
  for loss, nats in zip(together, symbols.id_loss([loss.ids for loss in together])):
    assert loss.nats.tolist() == nats.tolist()


def test_a_text_has_one_draw_in_all_its_windows_and_another_for_another_seed():
  model = make('lexinvariant')
  again, other = model.token_loss(TEXTS), model.token_loss(TEXTS, seed=1)
  for one, same, different in zip(model.token_loss(TEXTS), again, other):
    assert one.nats.tolist() == same.nats.tolist()
    assert not one.nats.size or one.nats.tolist() != different.nats.tolist()
  # All windows of a repeated token are alike: its row stays.
  [loss] = model.token_loss([b'\x01' * 40])
  assert loss.nats.size == 40
  later = loss.nats[CONTEXT:].reshape(-1, CONTEXT // 2)
  np.testing.assert_allclose(later, np.broadcast_to(later[0], later.shape), rtol=1e-4)


def test_bits_per_byte_are_of_all_bytes_with_their_error_over_documents():
  model = make()
  found = model.bits_per_byte(TEXTS)
  bits, sizes = [], []
  for text in filter(None, TEXTS):
    ids = BPE.encode(text)
    nats = model.token_loss([text])[0].nats
    assert nats.size == ids.size
    bits.append(nats.sum() / math.log(2))
    sizes.append(len(text))
  ratio = sum(bits) / sum(sizes)
  spread = sum((b - ratio * s) ** 2 for b, s in zip(bits, sizes))
  assert found.value == pytest.approx(ratio, rel=1e-6)
  assert found.sem == pytest.approx(math.sqrt(3 / 2 * spread) / sum(sizes), rel=1e-4)
  assert (found.n, found.over, found.df) == ('3', 'documents', 2)


def test_bytes_that_a_tokenizer_drops_count():
  lower = hostile.family('foreign')
  module = around(Learned(lower.vocab_size, DIM))
  model = TrainedModel(module, filled(module), lower, CONTEXT)
  text = b'The Words'
  [loss] = model.token_loss([text])
  assert model.bits_per_byte([text]).value == pytest.approx(
    loss.nats.sum() / math.log(2) / len(text)
  )
  assert loss.bytes.sum() == len(text)


def test_streams_of_a_byte_model_are_scored_side_by_side():
  codec = SteppedAC(byte_models.Stepping(byte_models.Uniform(), 2), 'uniform', 8)
  module = around(Learned(256, DIM))
  model = TrainedModel(module, filled(module), codec, CONTEXT)
  texts = [b'abc', b'some more', b'x']
  for text, loss, coded in zip(texts, model.token_loss(texts), codec.cover_batch(texts)):
    assert loss.ids.tolist() == coded.ids.tolist()
    assert loss.bytes.sum() == len(text)
    assert loss.nats.shape == coded.ids.shape
    assert (loss.nats > 0).all()


def test_what_cannot_be_scored_is_named():
  model = make()
  for texts in (b'abc', 'abc', ['abc']):
    with pytest.raises(InputError, match='a list of byte strings'):
      model.token_loss(texts)
  for texts in ([], [b'']):
    with pytest.raises(InputError, match='there is no text to score'):
      model.bits_per_byte(texts)
  for ids in ([V], [-1], [[1]]):
    with pytest.raises(InputError, match=r'must be ids .* from 0 to 299'):
      model.id_loss([[1], ids])
  for ids in ([], [[[1]]], [0.5], np.zeros(CONTEXT + 1, int), [-1], [V + 1]):
    with pytest.raises(InputError, match=r'ids must be|takes up to 10 ids from 0 to 300'):
      model.logits(ids)
  with pytest.raises(InputError, match='BOS id 301 is out of range'):
    dataclasses.replace(model, bos=301)
  module = around(Learned(200, DIM))
  with pytest.raises(InputError, match='200 ids does not fit a tokenizer of 300'):
    TrainedModel(module, filled(module), BPE, CONTEXT)


def test_logits_are_those_of_the_module():
  model = make()
  ids = np.array([[V, 5, 9, 1], [V, 2, 2, 2]])
  found = model.logits(ids)
  assert found.shape == (2, 4, V)
  for row, logits in zip(ids, found):
    np.testing.assert_allclose(model.logits(row), logits, rtol=1e-4, atol=1e-5)
    expected = plain(model, [*row[1:], 0])
    np.testing.assert_allclose(jax.nn.log_softmax(logits), expected, rtol=1e-4, atol=1e-4)


# --- samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['learned', 'lexinvariant'])
def test_a_sample_is_that_of_its_seed(kind):
  model = make(kind)
  sample = lambda **options: b''.join(model.generate(b'the wo', max_bytes=30, **options))
  assert len(sample()) == 30
  assert sample(seed=3) == sample(seed=3)
  assert len({sample(seed=seed) for seed in range(4)}) > 1
  parts = list(model.generate(b'the wo', max_bytes=30))
  assert len(parts) > 1
  assert all(parts)
  assert next(model.generate(b'')) == next(model.generate(b'', max_bytes=100))[:100]
  assert list(model.generate(b'a', max_bytes=0)) == []


@pytest.mark.parametrize('kind', ['learned', 'lexinvariant'])
def test_several_prompts_are_sampled_apart(kind):
  model = make(kind)
  join = lambda parts: [b''.join(one) for one in zip(*parts)]
  given = join(model.generate([b'the wo', b'', b'the wo'], max_bytes=30))
  assert [len(text) for text in given] == [30] * 3
  assert given[0] != given[2]  # at another place, with another key
  assert given[0] == b''.join(model.generate(b'the wo', max_bytes=30))
  other = join(model.generate([b'x', b'', b'yz'], max_bytes=30))
  assert other[1] == given[1]
  with pytest.raises(InputError, match='at least one prompt'):
    model.generate([])


def test_the_likeliest_sample_follows_the_logits():
  tokens = Characters(b'abcdefgh')
  module = around(Learned(8, DIM))
  model = TrainedModel(module, filled(module, seed=1), tokens, 12)
  ids = [8, 0]
  for _ in range(8):
    logits = model.logits([*ids, *[0] * (12 - len(ids))])  # of one shape
    ids.append(int(logits[len(ids) - 1].argmax()))
  assert len(set(ids)) > 3
  expected = tokens.decode(ids[2:])
  assert b''.join(model.generate(b'a', max_bytes=8, temperature=0)) == expected


def test_what_cannot_be_sampled_is_named_at_once():
  module = around(Learned(256, DIM))
  model = TrainedModel(module, filled(module), GZip(), CONTEXT)
  with pytest.raises(InputError, match='cannot be sampled from gzip tokens'):
    model.generate(b'a')
  for options in ({'temperature': -1.0}, {'max_bytes': -1}, {'top_k': -1}, {'top_p': 0.0}):
    with pytest.raises(InputError, match='must be 0 or more'):
      make().generate(b'a', **options)


# --- tables ---------------------------------------------------------------------------------------

WITH_TABLES = [
  'learned',
  'untied',
  'frozen',
  'frozen of another width',
  'trained from rows',
  'permuted',
  'preceding',
]


@pytest.mark.parametrize('kind', WITH_TABLES)
def test_a_models_own_tables_change_nothing(kind):
  model = make(kind)
  tables = model.embedding_tables()
  assert tables.input.shape == tables.output.shape == (V, DIM)
  assert (tables.bias is not None) == (kind == 'untied')
  twin = model.with_tables(tables, BPE)
  assert twin.provenance.changes == ('tables of 300 ids were put in',)
  if kind == 'frozen of another width':  # whose rows are mapped to the width
    ids = np.array([V, 3, 250])
    np.testing.assert_allclose(twin.logits(ids), model.logits(ids), rtol=1e-4, atol=1e-4)
  else:
    assert twin.module == model.module
    same_bits(twin.variables, model.variables)


def test_tables_are_what_the_model_reads_and_predicts_by():
  for kind, scale in (('untied', 1.0), ('learned', 0.25), ('frozen of another width', 1.0)):
    model = make(kind)
    tables, embedding = model.embedding_tables(), model.module.embedding
    own = {name: tree['embedding'] for name, tree in model.variables.items() if 'embedding' in tree}
    hidden = np.random.default_rng(0).normal(size=(1, 1, DIM)).astype(embedding.dtype)
    logits = np.asarray(embedding.apply(own, hidden, None, method='logits'), np.float64)[0, 0]
    bias = 0 if tables.bias is None else tables.bias
    expected = scale * tables.output @ hidden[0, 0].astype(np.float64) + bias
    rough = {'rtol': 0.05, 'atol': 0.05} if kind == 'untied' else {'rtol': 1e-4, 'atol': 1e-5}
    np.testing.assert_allclose(logits, expected, **rough)
    vectors = embedding.apply(own, np.array([[7, 8]]), None, method='encode')[0]
    np.testing.assert_allclose(np.asarray(vectors, float), tables.input[[7, 8]], **rough)


@pytest.mark.parametrize('kind', ['learned', 'frozen', 'preceding'])
def test_another_vocabulary_saves_and_loads(kind, tmp_path):
  model, tokens = make(kind), Characters(b'abcd')
  rows = np.arange(4 * DIM, dtype=np.float32).reshape(4, DIM) / 50
  changed = model.with_tables(Tables(rows, rows[::-1]), tokens)
  assert changed.bos == 4
  found = changed.embedding_tables()
  np.testing.assert_array_equal(found.input, rows)
  np.testing.assert_array_equal(found.output, rows[::-1])
  same_bits(changed.variables['params']['decoder'], model.variables['params']['decoder'])
  changed.save(tmp_path / 'model')
  loaded = language_model.load(tmp_path / 'model')
  assert loaded.fingerprint == changed.fingerprint
  if kind == 'learned':
    [one], [other] = loaded.token_loss([b'abba']), changed.token_loss([b'abba'])
    assert one.nats.tolist() == other.nats.tolist()
  # The old model is as it was.
  same_bits(model.variables, make(kind).variables)
  assert model.module.embedding.vocab_size == V


@pytest.mark.parametrize('kind', [kind for kind in EMBEDDINGS if kind not in WITH_TABLES])
def test_embeddings_that_draw_their_rows_have_no_tables(kind):
  with pytest.raises(InputError, match='has no tables: it draws the rows'):
    make(kind).embedding_tables()


def test_tables_that_do_not_fit_are_named():
  model, rows = make(), np.zeros((V, DIM), np.float32)
  for tables, message in (
    (Tables(rows[:5], rows[:5]), 'tables of 5 rows do not fit a tokenizer of 300'),
    (Tables(rows, rows[:5]), 'two arrays'),
    (Tables(rows[:, :8], rows[:, :8]), 'width 8 do not fit a model of width 16'),
    (Tables(rows, rows, np.zeros(3)), r'bias must be an array \[300\]'),
  ):
    with pytest.raises(InputError, match=message):
      model.with_tables(tables, BPE)
  with pytest.raises(InputError, match='has no bias'):
    make('frozen').with_tables(Tables(rows, rows, np.zeros(V)), BPE)
