# SPDX-License-Identifier: Apache-2.0
"""Layouts of Hugging Face folders: translate a config.json into our modules, and locate the
weights.

A layout is data. A field of a config.json that changes what a model computes is either translated,
or must have the one supported value. Unknown fields are refused, and the error names them.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax.numpy as jnp

from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.models.decoder import Decoder, LanguageModel

Config = Mapping[str, Any]
Check = Callable[[Any, Config], bool]
ACTIVATIONS = {
  'silu': 'silu', 'swish': 'silu', 'gelu': 'gelu', 'relu': 'relu', 'gelu_new': 'gelu_tanh',
  'gelu_pytorch_tanh': 'gelu_tanh',
}  # fmt: skip
DTYPES = ('float32', 'bfloat16', 'float16')
# Fields that change nothing that a model computes after training.
IGNORED = (
  'architectures', 'attention_dropout', 'attn_pdrop', 'chunk_size_feed_forward', 'dtype',
  'embd_pdrop', 'id2label', 'initializer_range', 'label2id', 'max_window_layers', 'model_type',
  'n_ctx', 'name_or_path', 'output_attentions', 'output_hidden_states', 'pad_token_id',
  'pretraining_tp', 'problem_type', 'reorder_and_upcast_attn', 'resid_pdrop', 'return_dict',
  'summary_activation', 'summary_first_dropout', 'summary_proj_to_labels', 'summary_type',
  'summary_use_proj', 'task_specific_params', 'torch_dtype', 'torchscript', 'transformers_version',
  'unk_token_id', 'use_cache',
)  # fmt: skip
COMMON = ('vocab_size', 'tie_word_embeddings', 'bos_token_id', 'eos_token_id')
ROPE = ('rope_theta', 'rope_scaling', 'rope_parameters')
LLAMA3 = ('factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings')
WHOLE = ('layers', 'dim', 'heads', 'kv_heads', 'head_dim', 'mlp_dim', 'max_length')
MAY_LACK = ('kv_heads', 'head_dim', 'mlp_dim')
UNUSED = ('parent', 'name', 'init_std', 'remat', 'dtype', 'max_distance')  # of a trained model


class Layout(NamedTuple):
  """One layout.

  Attributes:
    architecture: the class of `transformers`.
    decoder: options that all its decoders have.
    fields: field of the config -> option of the decoder.
    defaults: values of absent fields; a field without a default is required.
    checks: field -> whether its value in this config is supported.
    weights: our path below 'params' -> tensor, without '.weight' or '.bias'; '{}' is the layer.
      Several paths of one tensor are its column blocks, in order.
    transposed: matrices are stored as [out, in].
  """

  architecture: str
  decoder: Mapping[str, Any]
  fields: Mapping[str, str]
  defaults: Config
  checks: Mapping[str, Check]
  weights: Mapping[str, str]
  transposed: bool


@dataclasses.dataclass(frozen=True)
class Shape:
  """A model without its weights.

  Attributes:
    layout: name of the layout.
    module: the language model.
    bos: the id that begins a document; None if a document begins with its own first token.
    ends: ids that end a text.
    config: the whole config.json.
  """

  layout: str
  module: LanguageModel
  bos: int | None
  ends: tuple[int, ...]
  config: Config

  @property
  def context(self) -> int:
    """The most tokens that the model reads."""
    return self.module.decoder.max_length


def _is(wanted: Any) -> Check:
  return lambda value, config: value == wanted


def _no_window(value: Any, config: Config) -> bool:
  """Whether a sliding window, if any, masks nothing."""
  if not config.get('use_sliding_window', True):
    return True
  return isinstance(value, int) and value >= config['max_position_embeddings']


def _llama(
  architecture: str, checks: Mapping[str, Check], defaults: dict[str, Any], **options: Any
) -> Layout:
  """Llama's layout, and layouts that differ from it in biases, norms or defaults."""
  layer = 'model.layers.{}.'
  head_norms = ('query_norm', 'q_norm'), ('key_norm', 'k_norm')
  attention = (
    ('query', 'q_proj'), ('key', 'k_proj'), ('value', 'v_proj'), ('out', 'o_proj'),
    *(head_norms if options.get('head_norm') else ()),
  )  # fmt: skip
  mlp = (
    ('up', 'gate_proj'),
    ('gate', 'up_proj'),
    ('down', 'down_proj'),
  )  # our `up` is the one with the activation
  weights = {
    'embedding/table': 'model.embed_tokens',
    'embedding/lm_head_table': 'lm_head',
    'decoder/final_norm': 'model.norm',
    'decoder/blocks/attention_norm': f'{layer}input_layernorm',
    'decoder/blocks/mlp_norm': f'{layer}post_attention_layernorm',
    **{f'decoder/blocks/{ours}': f'{layer}self_attn.{theirs}' for ours, theirs in attention},
    **{f'decoder/blocks/{ours}': f'{layer}mlp.{theirs}' for ours, theirs in mlp},
  }
  return Layout(
    architecture=architecture,
    decoder=dict(position='rotary', norm='rms', gated=True) | options,
    fields={
      'num_hidden_layers': 'layers', 'hidden_size': 'dim', 'num_attention_heads': 'heads',
      'num_key_value_heads': 'kv_heads', 'head_dim': 'head_dim', 'intermediate_size': 'mlp_dim',
      'max_position_embeddings': 'max_length', 'rms_norm_eps': 'norm_eps',
      'hidden_act': 'activation',
    },
    defaults={'rms_norm_eps': 1e-6, 'hidden_act': 'silu', 'tie_word_embeddings': False} | defaults,
    checks={'attention_bias': _is(False), 'mlp_bias': _is(False)} | dict(checks),
    weights=weights,
    transposed=True,
  )  # fmt: skip


WINDOWS: Mapping[str, Check] = {
  'sliding_window': _no_window,
  'use_sliding_window': _is(False),
  'layer_types': lambda value, config: set(value) == {'full_attention'},
}
QWEN = {'use_sliding_window': False}
GPT2_LAYER = 'transformer.h.{}.'
LAYOUTS: Mapping[str, Layout] = {
  'llama': _llama('LlamaForCausalLM', {}, {}),
  'mistral': _llama(
    'MistralForCausalLM', {'sliding_window': _no_window},
    {'num_key_value_heads': 8, 'sliding_window': 4096},
  ),
  'qwen2': _llama('Qwen2ForCausalLM', WINDOWS, QWEN | {'num_key_value_heads': 32}, bias='qkv'),
  'qwen3': _llama('Qwen3ForCausalLM', WINDOWS, QWEN | {'head_dim': 128}, head_norm=True),
  'gpt2': Layout(
    architecture='GPT2LMHeadModel',
    decoder=dict(position='learned', norm='layer', bias=True),
    fields={
      'n_layer': 'layers', 'n_embd': 'dim', 'n_head': 'heads', 'n_inner': 'mlp_dim',
      'n_positions': 'max_length', 'layer_norm_epsilon': 'norm_eps',
      'activation_function': 'activation',
    },
    defaults={
      'layer_norm_epsilon': 1e-5, 'activation_function': 'gelu_new', 'tie_word_embeddings': True,
    },
    checks={
      'scale_attn_weights': _is(True), 'scale_attn_by_inverse_layer_idx': _is(False),
      'add_cross_attention': _is(False),
    },
    weights={
      'embedding/table': 'transformer.wte',
      'embedding/lm_head_table': 'lm_head',
      'decoder/positions': 'transformer.wpe',
      'decoder/final_norm': 'transformer.ln_f',
      'decoder/blocks/attention_norm': f'{GPT2_LAYER}ln_1',
      'decoder/blocks/query': f'{GPT2_LAYER}attn.c_attn',
      'decoder/blocks/key': f'{GPT2_LAYER}attn.c_attn',
      'decoder/blocks/value': f'{GPT2_LAYER}attn.c_attn',
      'decoder/blocks/out': f'{GPT2_LAYER}attn.c_proj',
      'decoder/blocks/mlp_norm': f'{GPT2_LAYER}ln_2',
      'decoder/blocks/up': f'{GPT2_LAYER}mlp.c_fc',
      'decoder/blocks/down': f'{GPT2_LAYER}mlp.c_proj',
    },
    transposed=False,
  ),
}  # fmt: skip


def read(config: Config) -> Shape:
  """The model that a config.json describes.

  Raises:
    InputError: another layout, a missing field, or a value that is not supported.
  """
  name = config.get('model_type')
  if not isinstance(name, str) or name not in LAYOUTS:
    raise InputError(f'the layout {name!r} is not supported: use one of {", ".join(LAYOUTS)}.')
  layout, given = LAYOUTS[name], {k: v for k, v in config.items() if v is not None}
  values = {**layout.defaults, **given}
  for field, value in given.items():
    if field in layout.checks:
      if not _holds(layout.checks[field], value, values):
        raise InputError(f'{field}={value!r} is not supported in the layout {name}.')
    elif field in ROPE and layout.decoder['position'] == 'rotary':
      continue
    elif not (field in layout.fields or field in COMMON or field in IGNORED or field[0] == '_'):
      raise InputError(f'the field {field}={value!r} is not supported in the layout {name}.')
  if values.get('architectures', [layout.architecture]) != [layout.architecture]:
    raise InputError(
      f'architectures={values["architectures"]!r} is not supported: it should be '
      f'{[layout.architecture]}.'
    )
  dtype = values.get('dtype', values.get('torch_dtype', 'float32'))
  if dtype not in DTYPES:
    raise InputError(f'the dtype {dtype!r} is not one of {", ".join(DTYPES)}.')
  size, tied = _whole('vocab_size', values.get('vocab_size')), values['tie_word_embeddings']
  if not isinstance(tied, bool):
    raise InputError(f'tie_word_embeddings must be true or false; got {tied!r}.')
  decoder = Decoder(**_options(layout, values), **layout.decoder, dtype=jnp.dtype(dtype))
  module = LanguageModel(Learned(size, decoder.dim, tied=tied, dtype=decoder.dtype), decoder)
  ends = values.get('eos_token_id', [])
  ends = tuple(_id(end, size) for end in (ends if isinstance(ends, list) else [ends]))
  bos = _id(values['bos_token_id'], size) if 'bos_token_id' in values else (*ends, None)[0]
  return Shape(name, module, bos, ends, config)


def _options(layout: Layout, values: Config) -> dict[str, Any]:
  """The options of the decoder that differ within the layout."""
  found: dict[str, Any] = {option: values.get(field) for field, option in layout.fields.items()}
  for field, option in layout.fields.items():
    if option in WHOLE and not (found[option] is None and option in MAY_LACK):
      _whole(field, found[option])
  found['mlp_dim'] = found['mlp_dim'] or 4 * found['dim']
  found['activation'] = ACTIVATIONS.get(str(found['activation']), found['activation'])
  if type(found['norm_eps']) is not float or not 0 < found['norm_eps'] < 1:
    raise InputError(f'the epsilon of norms must be between 0 and 1; got {found["norm_eps"]!r}.')
  if layout.decoder['position'] == 'rotary':
    found['rotary_base'], found['rotary_scaling'] = _rotary(values)
  heads, kv_heads = found['heads'], found.get('kv_heads') or found['heads']
  if heads % kv_heads or (not found.get('head_dim') and found['dim'] % heads):
    raise InputError(
      f'{heads} heads and {kv_heads} heads of keys do not divide a width of {found["dim"]}.'
    )
  sizes = {'kv_heads': kv_heads, 'head_dim': found.get('head_dim') or found['dim'] // heads}
  return found | {option: size for option, size in sizes.items() if option in found}


def write(layout: str, module: LanguageModel, bos: int | None, ends: tuple[int, ...]) -> Config:
  """The config.json of a module whose embedding is `Learned`.

  Raises:
    InputError: an option that the layout cannot express.
  """
  told, decoder, embedding = LAYOUTS[layout], cast(Decoder, module.decoder), module.embedding
  name_of = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
  config: dict[str, Any] = {
    'architectures': [told.architecture], 'model_type': layout,
    'vocab_size': embedding.vocab_size, 'tie_word_embeddings': embedding.tied,
    'bos_token_id': bos, 'eos_token_id': ends[0] if len(ends) == 1 else list(ends) or None,
    'torch_dtype': jnp.dtype(embedding.dtype).name,
  }  # fmt: skip
  meaning = _meaning(decoder)
  for field, option in told.fields.items():
    config[field] = decoder.max_length if option == 'max_length' else meaning[option]
    if option == 'activation':
      config[field] = name_of.get(decoder.activation, decoder.activation)
  if told.decoder['position'] == 'rotary':
    config['rope_theta'] = decoder.rotary_base
    if decoder.rotary_scaling:
      scaling = dict(zip(LLAMA3, decoder.rotary_scaling, strict=True))
      config['rope_scaling'] = scaling | {'rope_type': 'llama3'}
  said = _meaning(cast(Decoder, read(config).module.decoder))
  if lost := [f'{name}={value!r}' for name, value in meaning.items() if said.get(name) != value]:
    raise InputError(f'the layout {layout} cannot express {", ".join(lost)}.')
  return config


def _meaning(decoder: Decoder) -> dict[str, Any]:
  """The options that decide what a trained decoder computes."""
  fields = {one.name: getattr(decoder, one.name) for one in dataclasses.fields(decoder)}
  found = {name: value for name, value in fields.items() if name not in UNUSED}
  found['head_dim'] = decoder.head_dim or decoder.dim // decoder.heads
  found['kv_heads'] = decoder.kv_heads or decoder.heads
  if decoder.position != 'learned':
    del found['max_length']
  if decoder.position != 'rotary':
    del found['rotary_base'], found['rotary_scaling']
  return found


def _holds(check: Check, value: Any, values: Config) -> bool:
  try:
    return check(value, values)
  except (TypeError, KeyError):
    return False


def _whole(field: str, value: Any) -> int:
  if type(value) is not int or not 0 < value < 2**31:
    raise InputError(f'{field} must be a whole number above 0; got {value!r}.')
  return value


def _id(value: Any, size: int) -> int:
  if type(value) is not int or not 0 <= value < size:
    raise InputError(f'the ids of BOS and EOS must be below vocab_size={size}; got {value!r}.')
  return value


def _rotary(values: Config) -> tuple[float, tuple[float, float, float, int] | None]:
  """Base and scaling of the rotary embedding, in the older or the newer form of the file."""
  rope = values.get('rope_parameters') or values.get('rope_scaling') or {}
  if not isinstance(rope, dict):
    raise InputError(f'the scaling of rotary positions must be an object; got {rope!r}.')
  base: Any = rope.get('rope_theta', values.get('rope_theta', 10_000.0))
  kind = rope.get('rope_type', rope.get('type', 'default'))
  known = {'rope_theta', 'rope_type', 'type', *(LLAMA3 if kind == 'llama3' else ())}
  if kind not in ('default', 'llama3') or rope.keys() - known:
    raise InputError(
      f'rope_scaling of the type {kind!r} with {", ".join(sorted(rope))} is not supported: use the '
      "types 'default' or 'llama3'."
    )
  scaling = LLAMA3 if kind == 'llama3' else ()
  numbers: Any = [base, *(rope.get(name) for name in scaling)]
  for number in numbers:
    if type(number) not in (int, float) or not 0 < number < math.inf:
      raise InputError(f'the numbers of rotary positions must be above 0; got {number!r}.')
  if kind == 'default':
    return float(base), None
  factor, low, high, length = numbers[1:]
  if not low < high:
    raise InputError(f'high_freq_factor must be above low_freq_factor; got {high} and {low}.')
  return float(base), (float(factor), float(low), float(high), int(length))
