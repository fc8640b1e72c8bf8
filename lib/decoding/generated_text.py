# SPDX-License-Identifier: Apache-2.0
"""Text sampled from a model over tokens: bytes that continue each prompt.

Where every window of tokens has a text of its own, the text continues the exact bytes of its
prompt. A tokenizer of another library may join tokens in its own way (drop a space at the beginning
of a text, for example): then a text continues the tokens of its prompt.
"""

import codecs
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lib.decoding import constraints, sampling
from lib.decoding.constraints import Pieces
from lib.decoding.sampling import Sampling
from lib.errors import InputError
from lib.models.decoder import LanguageModel
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.foreign import Foreign

LEAST_SLOTS = 64
BROKEN = '\ufffd'.encode()  # what libraries write for an incomplete character


def generate(
  model: LanguageModel,
  variables: Mapping[str, Any],
  tokenizer: Tokenizer,
  prompts: Sequence[bytes],
  *,
  bos: int | None,
  context: int,
  keys: jax.Array,
  how: Sampling = sampling.PLAIN,
  max_bytes: int | None = None,
  ends: Sequence[int] = (),
  rows: Any = None,
  begun: Sequence[tuple[list[int], bytes]] | None = None,
) -> Iterator[list[bytes]]:
  """Generates bytes after each prompt; without a limit, the caller stops it.

  Without `begun`, tokens of a prompt that a further byte could change are sampled again, among
  those that spell its last bytes.

  Args:
    model: the module.
    variables: of the model.
    tokenizer: of the model; see `constraints.pieces`.
    prompts: any bytes.
    bos: the id that begins a text; None if a text begins with its own first token.
    context: tokens that the model reads at most, BOS included.
    keys: random keys [B], one for each prompt.
    how: temperature, top-k and top-p.
    max_bytes: the most bytes of each text.
    ends: ids that end a text; they have no bytes.
    rows: the embedding's sampled rows for these texts and `context` places, if it samples any.
    begun: the tokens of each text so far, BOS among them, and its bytes beyond the prompt
      (`lib.language_model.prompts`).

  Raises:
    InputError: a tokenizer whose tokens mean nothing without those before them, no windows that
      spell a prompt's last bytes, or a prompt without a token for a model without BOS.
  """
  size = model.embedding.vocab_size
  windows = None if isinstance(tokenizer, Foreign) else constraints.pieces(tokenizer)
  window = 1 if windows is None else windows.tokens.shape[1]
  held, first = [b''] * len(prompts), [b''] * len(prompts)
  if begun is not None and windows is not None:
    started, first = [ids for ids, _ in begun], [beyond for _, beyond in begun]
    constraint = constraints.allow(windows.tokens[:, 0], size, len(prompts))
  else:
    if windows is None:
      parts = [(tokenizer.encode(prompt), b'') for prompt in prompts]
      constraint = constraints.allow(range(tokenizer.vocab_size), size, len(prompts))
    else:
      parts = [constraints.hold_back(tokenizer, prompt, window) for prompt in prompts]
      constraint = constraints.spell(windows, [rest for _, rest in parts], size)
    held = [rest for _, rest in parts]
    started = [[*([] if bos is None else [bos]), *kept.tolist()] for kept, _ in parts]
  if not all(started):
    raise InputError(
      'this model has no BOS token: a prompt must have a token that nothing changes.'
    )
  slots, limit = context, None
  if max_bytes is not None:  # a window has a byte or more
    limit = window * (max_bytes + max(map(len, held), default=0))
    needed = max(map(len, started), default=0) + limit
    slots = min(context, max(LEAST_SLOTS, 1 << (needed - 1).bit_length()))
  sampled = sampling.stream(
    model,
    variables,
    started,
    slots=slots,
    keys=keys,
    how=how,
    constraint=constraint,
    ends=ends,
    limit=limit,
    window=window,
    rows=rows,
  )
  if windows is None:
    known = [ids[bos is not None :] for ids in started]
    found = _decoded(sampled, tokenizer, known, frozenset(ends))
  else:
    found = _spelled(sampled, windows, held, frozenset(ends))
  return _cut(itertools.chain([first], found), len(prompts), max_bytes)


def _spelled(
  sampled: Iterable[list[np.ndarray]], windows: Pieces, held: Sequence[bytes], ends: frozenset[int]
) -> Iterator[list[bytes]]:
  """The texts of sampled ids without the bytes held back; only whole windows have one."""
  text_of = dict(zip(map(tuple, windows.tokens.tolist()), windows.texts))
  size = windows.tokens.shape[1]
  waiting: list[list[int]] = [[] for _ in held]
  skip = [len(rest) for rest in held]
  for ids in sampled:
    given = []
    for i, new in enumerate(ids):
      waiting[i] += [token for token in new.tolist() if token not in ends]
      whole = len(waiting[i]) // size * size
      text = b''.join(text_of[tuple(waiting[i][at : at + size])] for at in range(0, whole, size))
      given.append(text[skip[i] :])
      waiting[i], skip[i] = waiting[i][whole:], max(0, skip[i] - len(text))
    yield given


def _decoded(
  sampled: Iterable[list[np.ndarray]],
  tokenizer: Tokenizer,
  known: list[list[int]],
  ends: frozenset[int],
) -> Iterator[list[bytes]]:
  """The library's text of the sampled ids after the known ones, up to the last whole character.

  All ids of a text are decoded again with the new ones, for a library may write a token in another
  way after others.
  """
  whole = [list(ids) for ids in known]
  written = [tokenizer.decode(ids) for ids in known]
  for ids in sampled:
    given = []
    for i, new in enumerate(ids):
      whole[i] += [token for token in new.tolist() if token not in ends]
      longer = tokenizer.decode(whole[i])
      broken = longer.endswith(BROKEN)  # a character has begun
      given.append(b'' if broken else longer[len(written[i]) :])
      written[i] = written[i] if broken else longer
    yield given


def _cut(parts: Iterable[list[bytes]], texts: int, max_bytes: int | None) -> Iterator[list[bytes]]:
  """The first bytes of each text, up to the limit."""
  left = [np.inf if max_bytes is None else max_bytes for _ in range(texts)]
  for part in parts:
    given = [text[: int(min(room, len(text)))] for text, room in zip(part, left, strict=True)]
    left = [room - len(text) for text, room in zip(given, left, strict=True)]
    if any(given):
      yield given
    if max(left, default=0) <= 0:
      return


def as_text(parts: Iterable[bytes]) -> Iterator[str]:
  """Turns a stream of bytes into a stream of text: whole characters, and U+FFFD for invalid
  UTF-8.
  """
  decoder = codecs.getincrementaldecoder('utf-8')('replace')
  for part in parts:
    if text := decoder.decode(part):
      yield text
  if text := decoder.decode(b'', final=True):
    yield text
