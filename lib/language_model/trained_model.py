# SPDX-License-Identifier: Apache-2.0
"""A trained language model: score texts, sample text, read and replace its embedding tables.

Legend: B texts, T tokens, V vocabulary, D model width.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from lib import stats
from lib.decoding import generated_text
from lib.decoding.byte_view import Vocabulary
from lib.decoding.sampling import Sampling
from lib.embeddings import table_pairs
from lib.embeddings.table_pairs import Tables
from lib.errors import InputError
from lib.language_model import modules, scoring
from lib.models.decoder import LanguageModel
from lib.parallel import sharding
from lib.parallel.mesh import batch_devices
from lib.parameters import path_name
from lib.tokenizers import base
from lib.tokenizers.base import Tokenizer

LOG_2 = float(np.log(2))
DRAWN_TOGETHER = 8  # most windows whose random rows are in memory at once
SAMPLES = 2**31 - 1  # folded into a text's key to get the key of its samples


@dataclasses.dataclass(frozen=True)
class Provenance:
  """The origin of a model; unknown fields are empty.

  Attributes:
    commit: commit of the code that trained it.
    config: config of the training run, JSON-like.
    text: source of the training text, as in the config.
    text_digest: sha256, in hex, of that text, or its first digits.
    seeds: seeds of its training.
    steps: steps of its training.
    initial: fingerprint of the model whose weights training started from.
    changes: what was done to the model after training, in words.
  """

  commit: str = ''
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  text: str = ''
  text_digest: str = ''
  seeds: tuple[int, ...] = ()
  steps: int = 0
  initial: str = ''
  changes: tuple[str, ...] = ()


class TokenLoss(NamedTuple):
  """The loss of each token of a text; from the second token on if the model has no BOS.

  Attributes:
    nats: float64 [n], −log of each token's probability among all V ids.
    bytes: int32 [n], bytes of the text that each token covers.
    ids: int32 [n].
  """

  nats: np.ndarray
  bytes: np.ndarray
  ids: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
  """A module with its weights, its tokenizer and its provenance.

  Some embeddings sample random rows. Then each text is scored, or generated, with one sample of
  rows in all its windows, by the key `fold_in(key(seed), index of the text)`. Nothing is averaged
  over samples.

  Attributes:
    module: the language model, without fields that only make initial variables
      (`modules.as_data`).
    variables: collections of arrays, such as 'params' and 'frozen'.
    tokenizer: bytes to ids; None if the model's symbols are not text.
    context: most inputs of the model, BOS included: the row length in training.
    bos: the id that begins a document; by default the tokenizer's `vocab_size`. None: a document
      begins with its own first token, which is not scored.
    provenance: origin of the model.
    mesh: devices over which the variables are sharded; None: one device.
    ends: ids that end a generated text; their bytes are not part of it.
  """

  module: LanguageModel
  variables: Mapping[str, Any]
  tokenizer: Tokenizer | None
  context: int
  bos: int | None = -1
  provenance: Provenance = Provenance()
  mesh: Mesh | None = None
  ends: tuple[int, ...] = ()

  def __post_init__(self) -> None:
    size = self.module.embedding.vocab_size
    if self.context < 2:
      raise InputError(f'the context of a model must be 2 tokens or more; got {self.context}.')
    if self.tokenizer is not None and self.tokenizer.vocab_size > size:
      raise InputError(
        f'a model of {size} ids does not fit a tokenizer of {self.tokenizer.vocab_size}.'
      )
    if self.bos is not None and self.bos > size:
      raise InputError(f'the BOS id {self.bos} is out of range: this model reads ids 0 to {size}.')
    if self.bos is not None and self.bos < 0:
      bos = size if self.tokenizer is None else self.tokenizer.vocab_size
      object.__setattr__(self, 'bos', bos)
    object.__setattr__(self, 'module', modules.as_data(self.module, self.variables))

  @functools.cached_property
  def fingerprint(self) -> str:
    """The sha256, in hex, of module, weights and tokenizer: equal exactly for equal models."""
    parts = [modules.to_json(self.module), self.context, self.bos, self._tokenizer_fingerprint]
    parts += [list(self.ends)] if self.ends else []
    return base.digest(json.dumps(parts, sort_keys=True), flat(self.variables))

  @property
  def first_id(self) -> int:
    """The id that begins a document; raises InputError for a model without BOS."""
    if self.bos is None:
      raise InputError('this model has no BOS token, with which a text could begin.')
    return self.bos

  @property
  def _unscored(self) -> int:
    """Tokens at the beginning of a document that are not scored."""
    return int(self.bos is None)

  @property
  def _tokenizer_fingerprint(self) -> str:
    return '' if self.tokenizer is None else self.tokenizer.fingerprint

  @property
  def parameters(self) -> int:
    """The number of parameters, without embedding and LM head."""
    return sum(leaf.size for leaf in jax.tree.leaves(self.variables['params']['decoder']))

  def token_loss(self, texts: Sequence[bytes], seed: int = 0) -> list[TokenLoss]:
    """The loss of every token of each text, in nats.

    A text begins with BOS, if the model has one. A text longer than the context is read in windows
    with half a context of overlap, and each token is scored once (`lib.language_model.scoring`).

    Args:
      texts: the documents.
      seed: seed of random rows, if the embedding samples them.

    Raises:
      InputError: bytes that the tokenizer does not accept.
    """
    if isinstance(texts, bytes | str) or not all(isinstance(text, bytes) for text in texts):
      raise InputError('texts must be a list of byte strings, one for each document.')
    coded = self._tokenizer.cover_batch(texts)
    losses = self.id_loss([one.ids for one in coded], seed)
    first = self._unscored
    return [
      TokenLoss(nats, one.byte_lengths[first:], one.ids[first:])
      for nats, one in zip(losses, coded, strict=True)
    ]

  def id_loss(self, documents: Sequence[ArrayLike], seed: int = 0) -> list[np.ndarray]:
    """As `token_loss`, of documents given as ids [n] without BOS: nats, float64 [scored] each."""
    rows = [np.asarray(ids).astype(np.int32) for ids in documents]
    size = self.module.embedding.vocab_size
    for ids in rows:
      if ids.ndim != 1 or (ids.size and not 0 <= ids.min() <= ids.max() < size):
        raise InputError(f'a document must be ids [n] from 0 to {size - 1}; got {ids}.')
    before = [ids[0] if self.bos is None and ids.size else self.bos or 0 for ids in rows]
    rows = [ids[self._unscored :] for ids in rows]
    losses = [np.zeros(len(ids)) for ids in rows]
    devices = 1 if self.mesh is None else batch_devices(self.mesh)
    for batch in scoring.batches(rows, before, self.context, devices):
      nats = self._apply('__call__', batch.arrays, batch.documents, seed)
      for row, window in enumerate(batch.windows):
        scored = nats[row, window.first - window.start : window.stop - window.start]
        losses[window.document][window.first : window.stop] = scored
    return losses

  def row_loss(self, batch: Mapping[str, np.ndarray], seed: int = 0) -> np.ndarray:
    """Nats [B, T] of the targets of a training batch (`lib.data.pipeline`)."""
    fields = {name: batch[name] for name in ('inputs', 'targets', 'segments', 'positions')}
    return self._apply('__call__', fields, np.arange(len(fields['inputs'])), seed)

  def bits_per_byte(self, texts: Sequence[bytes], seed: int = 0) -> stats.Estimate:
    """Bits of all tokens divided by bytes of all texts, with the standard error over documents.

    All bytes of the texts count, including bytes that the tokenizer drops, except those of the
    first token if the model has no BOS. Texts without scored bytes are left out.

    Raises:
      InputError: there is no text, or as `token_loss`.
    """
    losses = [loss for loss in self.token_loss(texts, seed) if loss.bytes.sum()]
    nats, sizes = [loss.nats.sum() for loss in losses], [loss.bytes.sum() for loss in losses]
    if not sizes:
      raise InputError('there is no text to score: give one document that is not empty, or more.')
    return stats.ratio(nats, sizes).times(1 / LOG_2)

  def logits(self, ids: ArrayLike, seed: int = 0) -> np.ndarray:
    """Logits [..., T, V] (float32) after each of ids [T] or [B, T], which are used unchanged.

    The ids of a document must begin with `bos`.

    Raises:
      InputError: ids out of range, or more than the context.
    """
    rows = np.asarray(ids)
    size = self.module.embedding.vocab_size
    if rows.ndim not in (1, 2) or not rows.size or rows.dtype.kind not in 'iu':
      raise InputError(f'ids must be integers [T] or [B, T]; got {rows.dtype} {rows.shape}.')
    if rows.shape[-1] > self.context or rows.min() < 0 or rows.max() > size:
      raise InputError(
        f'this model takes up to {self.context} ids from 0 to {size}; got {rows.shape[-1]} from '
        f'{rows.min()} to {rows.max()}.'
      )
    inputs = np.atleast_2d(rows).astype(np.int32)
    places = np.broadcast_to(np.arange(inputs.shape[1], dtype=np.int32)[None], inputs.shape)
    arrays = {
      'inputs': inputs, 'targets': np.zeros_like(inputs), 'segments': np.ones_like(inputs),
      'positions': places,
    }  # fmt: skip
    found = self._apply('logits', arrays, np.arange(len(inputs), dtype=np.int32), seed)
    return found.reshape(*rows.shape, -1)

  def next_log_probs(self, batch: Mapping[str, Any], places: ArrayLike) -> jax.Array:
    """Log-probabilities [B, P, V] of the token after each of `places` [B, P] in a batch [B, T].

    The batch has the fields of training batches (`lib.data.pipeline`). Random rows are sampled once
    for the batch, with seed 0.
    """
    with self.on_mesh():
      return _next_log_probs(self.module)(self.variables, batch, places)

  def generate(
    self,
    prompt: bytes | Sequence[bytes] = b'',
    *,
    max_bytes: int | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
  ) -> Iterator[Any]:
    """Generates bytes after the prompt; without a limit, the caller stops it.

    Yields new bytes; for several prompts, lists with the new bytes of each text. A text depends
    only on its prompt, the index of the prompt and the seed.

    Args:
      prompt: any bytes, or a list of prompts, which can end inside a token: the tokens that cover a
        prompt are sampled among all covers (`lib.language_model.prompts`). If the tokenizer has no
        byte view, the last tokens are sampled again among tokens that spell the last bytes.
      max_bytes: most bytes of a text; None: no limit.
      seed: seed of the samples, and of random rows.
      temperature: sampling temperature; 0: always the most likely token.
      top_k: sample from the K most likely tokens; 0: from all.
      top_p: sample from the fewest most likely tokens with this total probability.

    Raises:
      InputError: a tokenizer whose tokens have no bytes of their own, or options out of range.
    """
    if max_bytes is not None and max_bytes < 0:
      raise InputError(f'max_bytes must be 0 or more; got {max_bytes}.')
    from lib.language_model.prompts import begin  # which imports this module

    how = Sampling(temperature, top_k, top_p)
    prompts = [prompt] if isinstance(prompt, bytes) else list(prompt)
    seeded = jax.random.key(seed)
    keys = jax.vmap(lambda i: jax.random.fold_in(seeded, i))(jnp.arange(len(prompts)))

    def sampled(texts: slice, rows: Any) -> Iterator[list[bytes]]:
      own = jax.vmap(lambda key: jax.random.fold_in(key, SAMPLES))(keys[texts])
      begun = None
      if self._byte_view is not None:
        begun = begin(self, self._byte_view, prompts[texts], own, how, rows)
      return generated_text.generate(
        self.module,
        self.variables,
        self._tokenizer,
        prompts[texts],
        bos=self.bos,
        ends=self.ends,
        context=self.context,
        keys=own,
        how=how,
        max_bytes=max_bytes,
        rows=rows,
        begun=begun,
      )

    with self.on_mesh():
      length = self.context
      draws = [
        _sample_rows(self.module, self.variables, i, seeded, length) for i in range(len(prompts))
      ]
    if not prompts or draws[0] is None:
      parts = sampled(slice(None), None)
    else:  # random rows of several texts cannot be one sample
      alone = [sampled(slice(i, i + 1), rows) for i, rows in enumerate(draws)]
      together = itertools.zip_longest(*alone, fillvalue=[b''])
      parts = ([part for [part] in one] for one in together)
    return (part for [part] in parts) if isinstance(prompt, bytes) else parts

  def embedding_tables(self) -> Tables:
    """The input and output tables, numpy [V, D], and the output bias [V] or None.

    Raises:
      InputError: an embedding with random rows.
    """
    part = table_pairs.part_of(self.variables, 'embedding')
    return table_pairs.get_tables(self.module.embedding, part)

  def with_tables(
    self, tables: Tables, tokenizer: Tokenizer, bos: int | None = -1, ends: tuple[int, ...] = ()
  ) -> 'TrainedModel':
    """A new model with the same decoder and other tables, for another tokenizer.

    The BOS vector is kept; its id becomes the new tokenizer's `vocab_size`, unless `bos` is one of
    its ids, or None.

    Raises:
      InputError: tables that do not fit the tokenizer or the model.
    """
    if len(tables.input) < tokenizer.vocab_size:
      raise InputError(
        f'tables of {len(tables.input)} rows do not fit a tokenizer of {tokenizer.vocab_size} ids.'
      )
    old = table_pairs.part_of(self.variables, 'embedding')
    embedding, part = table_pairs.put_tables(self.module.embedding, old, tables)
    changes = (*self.provenance.changes, f'tables of {tokenizer.vocab_size} ids were put in')
    return TrainedModel(
      self.module.clone(embedding=embedding),
      table_pairs.with_part(self.variables, 'embedding', part),
      tokenizer,
      self.context,
      bos,
      dataclasses.replace(self.provenance, changes=changes),
      self.mesh,
      ends,
    )

  def save(self, path: str | os.PathLike) -> None:
    """Writes the folder that `lib.language_model.load` reads, atomically.

    Raises:
      InputError: `path` exists, or the model has a class or a tokenizer that cannot be saved.
    """
    from lib.language_model import folder  # which imports this module

    folder.save(self, path)

  def export(self, path: str | os.PathLike, layout: str = '') -> None:
    """Writes a Hugging Face folder, atomically.

    If BOS is not one of the model's ids, it becomes an added token whose logit is always 0. Biases
    that only the layout has are written as zeros.

    Args:
      path: the new folder.
      layout: one of `lib.language_model.layouts`; by default that of the model's origin, or the
        first that can express the model.

    Raises:
      InputError: `path` exists, or the layout cannot express the model.
    """
    from lib.language_model import huggingface  # which imports this module

    huggingface.save(self, path, layout)

  @functools.cached_property
  def _byte_view(self) -> Vocabulary | None:
    """The tokens as bytes, if it is known which of them may follow each other."""
    from lib.language_model import byte_law  # which imports this module

    try:
      return byte_law.vocabulary(self)
    except InputError:
      return None

  @property
  def _tokenizer(self) -> Tokenizer:
    if self.tokenizer is None:
      raise InputError('this model has no tokenizer: its symbols are not text.')
    return self.tokenizer

  def on_mesh(self) -> contextlib.AbstractContextManager:
    """The context in which its module is applied."""
    return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

  def _apply(
    self, method: str, arrays: Mapping[str, np.ndarray], places: np.ndarray, seed: int
  ) -> np.ndarray:
    """The result of a method of the module for a batch; row b belongs to the text at
    `places[b]`.
    """
    batch: dict[str, Any] = {**arrays, 'places': places}
    if self.mesh is not None and len(places) % batch_devices(self.mesh) == 0:
      batch = sharding.global_batch(batch, self.mesh)
    with self.on_mesh():
      found = _by_text(self.module, method)(self.variables, batch, jax.random.key(seed))
    return np.asarray(found)


@functools.cache
def _next_log_probs(module: LanguageModel) -> jax.stages.Wrapped:
  """(variables, batch, places) -> log-probabilities; compiled once per module."""

  @jax.jit
  def apply(variables: Mapping, batch: Mapping[str, jax.Array], places: jax.Array) -> jax.Array:
    key = jax.random.key(0)
    logits: Any = module.apply(variables, batch, places, key, method='logits_at')
    return jax.nn.log_softmax(logits)

  return apply


@functools.cache
def _by_text(module: LanguageModel, method: str) -> jax.stages.Wrapped:
  """(variables, batch, key) -> the method's result for each row; compiled once per module."""

  @jax.jit
  def apply(variables: Mapping, batch: Mapping[str, jax.Array], key: jax.Array) -> Any:
    fields = {name: values for name, values in batch.items() if name != 'places'}
    shapes = jax.eval_shape(lambda: _sample_rows(module, variables, batch['places'][0], key))
    if shapes is None:
      return module.apply(variables, fields, key, method=method)

    def of_row(
      row: tuple,
    ) -> jax.Array:  # random rows depend on the shape of a batch and the place in it
      place, one = row
      alone = {name: values[None] for name, values in one.items()}
      own = jax.random.fold_in(key, place)
      return cast(jax.Array, module.apply(variables, alone, own, method=method))[0]

    return jax.lax.map(of_row, (batch['places'], fields), batch_size=DRAWN_TOGETHER)

  return apply


def _sample_rows(
  module: LanguageModel, variables: Mapping, place: int | jax.Array, key: jax.Array, length: int = 1
) -> Any:
  """The random rows for the text at a place; None if the embedding has none."""
  batch = {'inputs': jnp.zeros((1, length), jnp.int32)}
  own = jax.random.fold_in(key, place)
  return module.apply(variables, method=lambda bound: bound.embedding.sample_rows(own, batch))


def draws_rows(model: TrainedModel) -> bool:
  """Whether the embedding of a model has random rows."""
  drawn = lambda: _sample_rows(model.module, model.variables, 0, jax.random.key(0))
  return jax.eval_shape(drawn) is not None


def flat(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Arrays on the host by their path, such as 'params/decoder/final_norm/scale'."""
  leaves = jax.tree_util.tree_leaves_with_path(variables)
  return {path_name(path): np.asarray(leaf) for path, leaf in leaves}
