# SPDX-License-Identifier: Apache-2.0
"""Decoders other than the plain one, by name, and the FLOPs of hierarchies.

  transformer    the plain decoder, `experiments.fit.make_decoder`
  hierarchy      a transformer over chunks of tokens, between two networks over tokens
  recurrent      layers of a gated linear recurrence alone

FLOPs are those of matrix products that are needed (`lib.parameters`): chunks that a row has room
for but does not have are left out, so the FLOPs of a learned hierarchy are known once it is
trained.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import numpy as np
from ml_collections import ConfigDict

from experiments import fit
from experiments.fit import Fitted
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.models.decoder import LanguageModel
from lib.models.hierarchy import STAGES, Hierarchy
from lib.models.recurrence import RecurrentDecoder
from lib.models.routers import Cosine, Stride
from lib.parameters import describe_model


def make(config: ConfigDict, options: ConfigDict) -> Any:
  """The decoder that the section `options` names.

  A hierarchy has the section's transformer over its chunks, and networks of the section's width
  over its tokens; all else is in the config's section `hierarchy`.
  """
  dtype, chunked = fit.dtype(config), config.hierarchy
  if options.decoder == 'recurrent':
    return recurrent(options, dtype)
  plain = fit.make_decoder(options, dtype)
  if options.decoder == 'transformer':
    return plain
  outer = RecurrentDecoder(chunked.layers, options.dim, chunked.kind, options.remat, dtype)
  learned = chunked.router == 'learned'
  router = Cosine(options.dim) if learned else Stride(chunked.chunk)
  return hierarchy(chunked, outer, router, plain, chunked.chunk if learned else 0)


def recurrent(options: ConfigDict, dtype: Any, kind: str = 'recurrence') -> RecurrentDecoder:
  """Recurrent layers; `options` has `layers`, `dim` and `remat`."""
  return RecurrentDecoder(options.layers, options.dim, kind, options.remat, dtype)


def hierarchy(
  options: ConfigDict, outer: Any, router: nn.Module, inner: Any, target: float, without: str = ''
) -> Hierarchy:
  """One stage of a hierarchy.

  Args:
    options: a section with `room` and `ratio_weight`.
    outer: the network over tokens before the chunks; the one after them is alike.
    router: where chunks begin.
    inner: the network over chunks, or the next stage.
    target: tokens per chunk that a learned router is trained to; 0 for no ratio loss.
    without: 'no_smoothing' or 'no_straight_through', which only learned routers have.
  """
  learned = isinstance(router, Cosine)
  return Hierarchy(
    outer.dim,
    inner.dim,
    outer,
    router,
    inner,
    outer.clone(),
    room=options.room,
    target=float(target),
    ratio_weight=options.ratio_weight,
    smoothing=learned and without != 'no_smoothing',
    straight=learned and without != 'no_straight_through',
    dtype=outer.dtype,
  )


def check_room(where: str, room: float, chunk: int) -> None:
  """Raises InputError if a row has no room for chunks of `chunk` tokens."""
  if room < 1 / chunk:
    raise InputError(
      f'{where}.room must be at least 1 / {chunk}, the share of tokens that begin a chunk of '
      f'{chunk}; got {room}.'
    )


def with_rooms(decoder: Any, rooms: Sequence[float]) -> Any:
  """A hierarchy with other rooms for chunks, those of the outermost stage first."""
  if not rooms or not isinstance(decoder, Hierarchy):
    return decoder
  return decoder.clone(room=rooms[0], inner=with_rooms(decoder.inner, rooms[1:]))


def flops(model: LanguageModel, length: float, shares: Sequence[float] = ()) -> float:
  """FLOPs of a forward pass for each token of a text of `length` tokens.

  Args:
    model: with any decoder.
    length: tokens.
    shares: tokens of each stage that begin a chunk; by default what there is room for.
  """
  one = model.clone(decoder=with_rooms(model.decoder, shares))
  return describe_model(one, length=round(length)).flops


def with_rows(decoder: Any, vocab_size: int) -> LanguageModel:
  """The decoder with learned rows, which FLOPs are counted by."""
  return LanguageModel(Learned(vocab_size, decoder.dim, dtype=decoder.dtype), decoder)


def learned_share(chunk: float) -> float:
  """Tokens that begin a chunk, guessed before training; learned chunks are shorter than `chunk`."""
  return 0.07 + 0.9 / chunk


def guess(decoder: Any) -> list[float]:
  """The same for each stage of a hierarchy of `make`; nothing for a decoder without chunks."""
  if not isinstance(decoder, Hierarchy):
    return []
  router: Any = decoder.router
  share = 1 / router.size if isinstance(router, Stride) else learned_share(decoder.target)
  return [min(share, decoder.room)]


def train_shares(fitted: Sequence[Fitted]) -> list[float]:
  """Tokens of each stage that began a chunk there was room for, over the steps and seeds."""
  found: list[float] = []
  for stage in STAGES:
    of = lambda metric, one, stage=stage: np.array([*one.curve(metric + stage).values()])
    kept = [of('chunks_per_token', one) * (1 - of('overflow_share', one)) for one in fitted]
    if kept[0].size:
      found.append(float(np.mean(kept)))
  return found
