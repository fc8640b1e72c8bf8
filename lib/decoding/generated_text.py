# SPDX-License-Identifier: Apache-2.0
"""Text sampled from a model over tokens: bytes that continue the exact bytes of each prompt."""

import codecs
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lib.decoding import constraints, sampling
from lib.decoding.constraints import Pieces
from lib.decoding.sampling import Sampling
from lib.models.decoder import LanguageModel
from lib.tokenizers.base import Tokenizer

LEAST_SLOTS = 64


def generate(
  model: LanguageModel,
  variables: Mapping[str, Any],
  tokenizer: Tokenizer,
  prompts: Sequence[bytes],
  *,
  bos: int,
  context: int,
  keys: jax.Array,
  how: Sampling = sampling.PLAIN,
  max_bytes: int | None = None,
  rows: Any = None,
) -> Iterator[list[bytes]]:
  """The bytes that follow each prompt, as they are sampled; without a limit the caller stops it.

  The last tokens of a prompt are sampled again, among those that spell its last bytes.

  Args:
    model: the module.
    variables: of the model.
    tokenizer: of the model; see `constraints.pieces`.
    prompts: any bytes.
    bos: the id that begins a text.
    context: tokens that the model reads at most, BOS included.
    keys: random keys [B], one for each prompt.
    how: temperature, top-k and top-p.
    max_bytes: the most bytes of each text.
    rows: the embedding's sampled rows for these texts and `context` places, if it samples any.

  Raises:
    InputError: a tokenizer whose tokens mean nothing without those before them, or no windows that
      spell a prompt's last bytes.
  """
  windows = constraints.pieces(tokenizer)
  window = windows.tokens.shape[1]
  parts = [constraints.hold_back(tokenizer, prompt, window) for prompt in prompts]
  held = [rest for _, rest in parts]
  slots, limit = context, None
  if max_bytes is not None:  # a window has a byte or more
    limit = window * (max_bytes + max(map(len, held), default=0))
    needed = 1 + max((kept.size for kept, _ in parts), default=0) + limit
    slots = min(context, max(LEAST_SLOTS, 1 << (needed - 1).bit_length()))
  sampled = sampling.stream(
    model,
    variables,
    [[bos, *kept.tolist()] for kept, _ in parts],
    slots=slots,
    keys=keys,
    how=how,
    constraint=constraints.spell(windows, held, model.embedding.vocab_size),
    limit=limit,
    window=window,
    rows=rows,
  )
  return _bytes(sampled, windows, held, max_bytes)


def _bytes(
  sampled: Iterable[list[np.ndarray]],
  windows: Pieces,
  held: Sequence[bytes],
  max_bytes: int | None,
) -> Iterator[list[bytes]]:
  """The texts of sampled ids without the bytes held back; only whole windows have one."""
  text_of = dict(zip(map(tuple, windows.tokens.tolist()), windows.texts))
  size = windows.tokens.shape[1]
  waiting: list[list[int]] = [[] for _ in held]
  skip = [len(rest) for rest in held]
  left = [np.inf if max_bytes is None else max_bytes for _ in held]
  for ids in sampled:
    given = []
    for i, new in enumerate(ids):
      waiting[i] += new.tolist()
      whole = len(waiting[i]) // size * size
      text = b''.join(text_of[tuple(waiting[i][at : at + size])] for at in range(0, whole, size))
      part = text[skip[i] :][: int(min(left[i], len(text)))]
      waiting[i], skip[i], left[i] = (
        waiting[i][whole:], max(0, skip[i] - len(text)), left[i] - len(part)
      )  # fmt: skip
      given.append(part)
    if any(given):
      yield given
    if max(left, default=0) <= 0:
      return


def as_text(parts: Iterable[bytes]) -> Iterator[str]:
  """Bytes as they come as text as it comes: a character once whole, invalid UTF-8 as U+FFFD."""
  decoder = codecs.getincrementaldecoder('utf-8')('replace')
  for part in parts:
    if text := decoder.decode(part):
      yield text
  if text := decoder.decode(b'', final=True):
    yield text
