# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders: read, written, refused. Their fixtures were made with `transformers`."""

import dataclasses
import functools
import json
import pathlib
import shutil
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lib import language_model
from lib.decoding import generated_text
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.language_model import TrainedModel, huggingface
from lib.models.decoder import Decoder, LanguageModel
from lib.parallel import sharding
from lib.tokenizers.characters import Characters
from tests.helpers import hostile

FIXTURES = pathlib.Path(__file__).parents[1] / 'fixtures/hf'
FOLDERS = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())
WORDS = b'The model reads a text. ' * 3


@functools.cache
def load(name):
  return language_model.load(FIXTURES / name)


def in_float32(model):
  module = model.module
  wide = module.clone(
    embedding=module.embedding.clone(dtype=jnp.float32),
    decoder=module.decoder.clone(dtype=jnp.float32),
  )
  return dataclasses.replace(model, module=wide)


def tensors(folder):
  return {
    name: array for file in folder.glob('*.safetensors') for name, array in load_file(file).items()
  }


@pytest.mark.parametrize('name', FOLDERS)
def test_logits_are_those_of_transformers(name):
  expected, model = np.load(FIXTURES / name / 'expected.npz'), load(name)
  ids = model.tokenizer.encode(expected['text'].tobytes())
  assert ids[: len(expected['ids'])].tolist() == expected['ids'].tolist()
  found = in_float32(model).logits(expected['ids'])
  assert found.shape == expected['logits'].shape  # probabilities are over all rows
  np.testing.assert_allclose(found, expected['logits'], atol=1e-4)


@pytest.mark.parametrize('name', FOLDERS)
def test_export_gives_the_folder_back(name, tmp_path):
  model = load(name)
  model.export(tmp_path / 'out')
  again = language_model.load(tmp_path / 'out')
  assert again.fingerprint == model.fingerprint
  assert again.provenance.config['model_type'] == model.provenance.config['model_type']
  old, new = tensors(FIXTURES / name), tensors(tmp_path / 'out')
  assert old.keys() == new.keys()
  for tensor, array in old.items():
    assert array.dtype == new[tensor].dtype == model.variables['params']['embedding']['table'].dtype
    assert array.tobytes() == new[tensor].tobytes()
  with pytest.raises(InputError, match='there is something at'):
    model.export(tmp_path / 'out')


def test_our_own_folder_keeps_an_imported_model(tmp_path):
  load('llama3').save(tmp_path / 'ours')
  again = language_model.load(tmp_path / 'ours')
  assert again.fingerprint == load('llama3').fingerprint
  assert again.ends == (1,)


def test_a_sharded_model_is_read_tensor_by_tensor(tmp_path):
  """Peak memory of the host: one tensor, the table of names, and the BOS row."""
  shutil.copytree(FIXTURES / 'llama', tmp_path / 'llama')
  config = json.loads((tmp_path / 'llama/config.json').read_text())
  sizes = dict(hidden_size=256, intermediate_size=1024, num_hidden_layers=6)
  (tmp_path / 'llama/config.json').write_text(json.dumps(config | sizes))
  shape = huggingface.read_shape(tmp_path / 'llama')
  told = huggingface.described(shape.module)
  random = np.random.default_rng(0)
  arrays = {}
  for keys, leaf in jax.tree_util.tree_leaves_with_path(told.shapes):
    key = huggingface.path_name(keys)
    if key != huggingface.BOS_VECTOR:
      place = huggingface.place_of('llama', key, leaf, told.declared)
      for name in place.names:
        arrays[name] = random.normal(size=place.stored).astype(np.float32)
  save_file(arrays, tmp_path / 'llama/model.safetensors')
  largest = max(array.nbytes for array in arrays.values())
  mesh = sharding.make_mesh({'fsdp': 2, 'tensor': 2}, jax.devices()[:4])
  language_model.load(tmp_path / 'llama', mesh)  # compiles
  tracemalloc.start()
  model = language_model.load(tmp_path / 'llama', mesh)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 1.5 * largest < sum(array.nbytes for array in arrays.values()) / 10
  gate = model.variables['params']['decoder']['blocks']['up']['kernel']
  assert {shard.data.shape for shard in gate.addressable_shards} == {(6, 128, 512)}
  expected = arrays['model.layers.5.mlp.gate_proj.weight']
  assert (np.asarray(gate[5]) == expected.T).all()
  alone = language_model.load(tmp_path / 'llama')
  np.testing.assert_allclose(
    model.token_loss([WORDS])[0].nats, alone.token_loss([WORDS])[0].nats, rtol=1e-4
  )


OWN = {
  'gpt2': dict(position='learned', activation='relu'),
  'llama': dict(position='rotary', norm='rms', gated=True, activation='silu', kv_heads=1),
  'qwen3': dict(position='rotary', norm='rms', gated=True, head_norm=True, norm_eps=1e-6),
}


def own(tokenizer=None, vocab_size=0, scale=1.0, **options):
  tokenizer = tokenizer or hostile.family('bpe')
  embedding = Learned(vocab_size or tokenizer.vocab_size, 16, logit_scale=scale)
  decoder = Decoder(**dict(layers=2, dim=16, heads=2, mlp_dim=24, max_length=32) | options)
  module = LanguageModel(embedding, decoder)
  random = np.random.default_rng(0)
  draw = lambda leaf: random.normal(scale=0.3, size=leaf.shape).astype(np.float32)
  variables = jax.tree.map(draw, huggingface.described(module).shapes)
  return TrainedModel(module, variables, tokenizer, 32)


@pytest.mark.parametrize('layout', OWN)
def test_our_models_are_written_with_bos_as_an_added_token(layout, tmp_path):
  model = own(scale=0.5, **OWN[layout])
  model.export(tmp_path / 'out')
  again = language_model.load(tmp_path / 'out')
  size = model.tokenizer.vocab_size
  assert again.provenance.config['model_type'] == layout
  assert (again.bos, again.tokenizer.vocab_size) == (size, size + 1)
  assert (
    again.tokenizer.encode(hostile.TEXT).tolist() == model.tokenizer.encode(hostile.TEXT).tolist()
  )
  ids = [size, *model.tokenizer.encode(hostile.TEXT[:30])]
  found = again.logits(ids)
  np.testing.assert_allclose(found[:, :size], model.logits(ids), atol=1e-5)
  assert not found[:, size].any()


@pytest.mark.parametrize(('options', 'message'), [
  (dict(position='t5'), "the layout llama cannot express position='t5'"),
  (dict(position='relative', norm='rms', gated=True), "cannot express position='relative'"),
  (dict(tokenizer=Characters(b'ab')), 'a tokenizer.json can express a BPE with all bytes'),
])  # fmt: skip
def test_options_that_no_layout_can_express_are_refused(options, message, tmp_path):
  with pytest.raises(InputError, match=message):
    own(**options).export(tmp_path / 'out')
  assert not (tmp_path / 'out').exists()
  with pytest.raises(InputError, match="the layout 'bert' is not supported"):
    own().export(tmp_path / 'out', 'bert')


def changed(tmp_path, name, **fields):
  folder = tmp_path / name
  shutil.copytree(FIXTURES / name, folder, dirs_exist_ok=True)
  config = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps(config | fields))
  return folder


@pytest.mark.parametrize(('name', 'fields', 'message'), [
  ('gpt2', dict(model_type='gpt_neox'), "the layout 'gpt_neox' is not supported: use one of llama"),
  ('gpt2', dict(scale_attn_by_inverse_layer_idx=True), 'scale_attn_by_inverse_layer_idx=True'),
  ('gpt2', dict(n_inner=0), 'n_inner must be a whole number above 0; got 0'),
  ('mistral', dict(sliding_window=32), 'sliding_window=32 is not supported'),
  ('qwen2', dict(use_sliding_window=True), 'use_sliding_window=True is not supported'),
  ('qwen2', dict(layer_types=['full_attention', 'sliding_attention']), 'layer_types='),
  ('llama', dict(rope_parameters=None, rope_scaling={'type': 'yarn', 'factor': 4.0}), "'yarn'"),
  ('llama', dict(rope_parameters={'rope_type': 'llama3', 'factor': 8.0}), 'above 0; got None'),
  ('llama', dict(num_local_experts=8), 'num_local_experts=8 is not supported'),
  ('llama', dict(quantization_config={'bits': 4}), 'quantization_config='),
  ('llama', dict(attention_bias=True), 'attention_bias=True is not supported'),
  ('llama', dict(architectures=['LlamaForSequenceClassification']), 'architectures='),
  ('llama', dict(hidden_act='mish'), "activation='mish' is not one of"),
  ('llama', dict(num_key_value_heads=3), 'do not divide'),
  ('llama', dict(hidden_size=None), 'hidden_size must be a whole number above 0; got None'),
  ('llama', dict(num_hidden_layers=10**12), 'must be a whole number'),
  ('llama', dict(num_hidden_layers=10**9), '1000000000 layers cannot be in'),
  ('llama', dict(vocab_size=2**30), r'has the shape \[288, 24\]; its config.json requires'),
  ('llama', dict(rms_norm_eps='1'), 'epsilon'),
  ('llama', dict(bos_token_id=288), 'below vocab_size=288; got 288'),
  ('llama', dict(tie_word_embeddings='yes'), 'tie_word_embeddings'),
  ('llama', dict(torch_dtype='int8', dtype='int8'), "the dtype 'int8'"),
])  # fmt: skip
def test_unsupported_options_are_refused_by_name(name, fields, message, tmp_path):
  with pytest.raises(InputError, match=message) as caught:
    language_model.load(changed(tmp_path, name, **fields))
  assert '\n' not in str(caught.value)


def test_a_window_that_hides_nothing_is_read(tmp_path):
  folder = changed(tmp_path, 'mistral', sliding_window=64)
  assert language_model.load(folder).fingerprint == load('mistral').fingerprint


def test_older_files_are_read(tmp_path):
  """Without prefixes, with buffers, with the LM head of tied tables, and older names of fields."""
  folder = changed(tmp_path, 'gpt2', tie_word_embeddings=None, dtype=None, torch_dtype='float32')
  arrays = {name.removeprefix('transformer.'): one for name, one in tensors(folder).items()}
  buffers = {
    'h.0.attn.bias': np.ones((1, 1, 64, 64), np.float32),
    'lm_head.weight': arrays['wte.weight'],
  }
  save_file(arrays | buffers, folder / 'model.safetensors')
  assert language_model.load(folder).fingerprint == load('gpt2').fingerprint
  rope = load('llama3').provenance.config['rope_parameters']
  older = dict(rope) | {'rope_type': None, 'type': 'llama3', 'rope_theta': None}
  older = {name: value for name, value in older.items() if value is not None}
  fields = dict(rope_parameters=None, rope_scaling=older, rope_theta=100.0)
  assert (
    language_model.load(changed(tmp_path, 'llama3', **fields)).fingerprint
    == load('llama3').fingerprint
  )


def damage(kind, folder):
  file = folder / 'model.safetensors'
  data = file.read_bytes()
  size = int.from_bytes(data[:8], 'little')
  header = json.loads(data[8 : 8 + size])
  write = lambda text: file.write_bytes(len(text).to_bytes(8, 'little') + text + data[8 + size :])
  if kind == 'cut short':
    file.write_bytes(data[:-1])
  elif kind == 'an oversized header':
    file.write_bytes((2**62).to_bytes(8, 'little') + data[8:])
  elif kind == 'overlapping offsets':
    same = header['lm_head.weight']['data_offsets']
    header['model.embed_tokens.weight']['data_offsets'] = same
    write(json.dumps(header).encode())
  elif kind == 'another shape':
    header['lm_head.weight']['shape'] = [24, 288]
    write(json.dumps(header).encode())
  elif kind == 'another kind':
    header['lm_head.weight']['dtype'] = 'I32'
    write(json.dumps(header).encode())
  elif kind == 'a missing tensor':
    save_file({k: v for k, v in load_file(file).items() if k != 'lm_head.weight'}, file)
  elif kind == 'one tensor more':
    save_file(load_file(file) | {'model.layers.0.mlp.experts': np.ones(2)}, file)
  elif kind == 'no weights':
    file.unlink()
  else:
    index = {'a path': '../llama/model.safetensors', 'an absolute path': str(file), 'no name': 3}
    (folder / 'model.safetensors.index.json').write_text(
      json.dumps({'weight_map': {'lm_head.weight': index[kind]}})
    )


@pytest.mark.parametrize(('kind', 'message'), [
  ('cut short', 'is not a safetensors file'),
  ('an oversized header', 'is not a safetensors file'),
  ('overlapping offsets', 'is not a safetensors file'),
  ('another shape', r'lm_head.weight in .* has the shape \[24, 288\]'),
  ('another kind', 'lm_head.weight in .* is I32'),
  ('a missing tensor', 'lack lm_head.weight'),
  ('one tensor more', 'model.layers.0.mlp.experts in .* is not a tensor of its layout'),
  ('no weights', 'is not a safetensors file'),
  ('a path', 'in its own folder'),
  ('an absolute path', 'in its own folder'),
  ('no name', 'in its own folder'),
])  # fmt: skip
def test_damage_is_named_before_memory_is_taken(kind, message, tmp_path):
  folder = changed(tmp_path, 'llama')
  damage(kind, folder)
  tracemalloc.start()
  with pytest.raises(InputError, match=message) as caught:
    language_model.load(folder)
  assert tracemalloc.get_traced_memory()[1] < 2**21
  tracemalloc.stop()
  assert '\n' not in str(caught.value)


def test_without_bos_the_first_token_is_not_scored():
  model = load('qwen3')
  [found] = model.token_loss([WORDS])
  ids = model.tokenizer.encode(WORDS)
  assert found.ids.tolist() == ids[1:].tolist()
  assert len(WORDS) - found.bytes.sum() == model.tokenizer.byte_lengths(ids[:1])[0]
  scores = jax.nn.log_softmax(model.logits(ids))
  expected = -np.take_along_axis(scores[:-1], ids[1:, None], axis=1)[:, 0]
  np.testing.assert_allclose(found.nats, expected, atol=1e-4)
  value = expected.sum() / np.log(2) / found.bytes.sum()
  np.testing.assert_allclose(model.bits_per_byte([WORDS, b'T', b'']).value, value, rtol=1e-5)


def test_a_document_begins_with_bos_or_else_with_eos():
  for name, first in (('mistral', 0), ('qwen2', 1)):
    model = load(name)
    ids = model.tokenizer.encode(WORDS)
    scores = jax.nn.log_softmax(model.logits([first, *ids]))
    expected = -np.take_along_axis(scores[:-1], ids[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(model.token_loss([WORDS])[0].nats, expected, atol=1e-4)


@pytest.mark.parametrize('name', ['llama', 'gpt2', 'qwen3'])
def test_samples_end_with_eos_and_spell_no_special_token(name):
  model = load(name)
  sampled = lambda model: b''.join(model.generate(WORDS[:9], max_bytes=60, seed=1))
  plain = dataclasses.replace(model, ends=())
  whole = sampled(plain)
  assert whole
  every = dataclasses.replace(model, ends=tuple(range(model.tokenizer.vocab_size)))
  assert sampled(every) == b''
  assert len(sampled(model)) <= 60


def test_text_of_a_foreign_tokenizer_comes_in_whole_characters():
  tokenizer = load('llama').tokenizer
  text = 'The model tötal: 漢字, and more. '.encode()
  known, ids = tokenizer.encode(b'The').tolist(), tokenizer.encode(text).tolist()
  steps = ([np.array([token])] for token in [*ids[len(known) :], 1])
  parts = [part for [part] in generated_text._decoded(steps, tokenizer, [known], frozenset([1]))]
  assert b'The' + b''.join(parts) == text
  assert all(part.decode() is not None for part in parts)
