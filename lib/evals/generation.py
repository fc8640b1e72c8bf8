# SPDX-License-Identifier: Apache-2.0
"""Text sampled from a model over tokens: it streams out window by window, under a prompt's bytes.

A prompt rarely ends where a window does, and as tokens its last window would say that the text ends
there. So the tokens that any further byte could change are held back, and sampled anew among those
that spell the bytes held back: the text goes on from the prompt's very bytes.
"""

import codecs
import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from lib.errors import InputError
from lib.tokenizers.base import Tokenizer

Read = Callable[[int], np.ndarray]  # reads one more id; logits [V] of the next


@dataclasses.dataclass(frozen=True)
class Pieces:
  """What a tokenizer's windows can say; a window is the fewest tokens that stand for whole texts.

  Attributes:
    tokens: int32 [n, tokens of a window], no two rows the same.
    texts: the bytes of each; none is empty.
  """

  tokens: np.ndarray
  texts: list[bytes]

  def agree(self, held: bytes) -> np.ndarray:
    """Which texts begin with `held`, or are its beginning: bool [n]."""
    return np.array([text.startswith(held) or held.startswith(text) for text in self.texts])


def pieces(tokenizer: Tokenizer) -> Pieces:
  """The windows of a tokenizer whose every window has a text of its own.

  Raises:
    InputError: for any other, whose tokens mean nothing without those before them.
  """
  tokens, texts = tokenizer.windows()
  some = np.flatnonzero([len(text) > 0 for text in texts])
  return Pieces(tokens[some], [texts[i] for i in some.tolist()])


def hold_back(tokenizer: Tokenizer, prompt: bytes, window: int = 1) -> tuple[np.ndarray, bytes]:
  """The prompt's tokens that no further byte can change, and the bytes after them.

  Args:
    tokenizer: of the model.
    prompt: any bytes.
    window: tokens of a window, of which none is kept without the others.

  Raises:
    InputError: the tokens kept do not spell the prompt's beginning, in a mode that is not lossless.
  """
  ids = tokenizer.encode(prompt)
  kept = ids.size
  for byte in tokenizer.alphabet:
    longer = tokenizer.encode(prompt + bytes([byte]))[: ids.size]
    differ = np.flatnonzero(longer != ids[: longer.size])
    kept = min(kept, longer.size, *differ[:1].tolist())
  ids = ids[: kept - kept % window]
  spelled = tokenizer.decode(ids)
  if not prompt.startswith(spelled):
    raise InputError(
      f'the {tokenizer.family} tokens of the prompt spell {spelled[-20:]!r} where it has other '
      'bytes, for this mode is not lossless: use one that is'
    )
  return ids, prompt[len(spelled) :]


def generate(
  read: Read,
  tokenizer: Tokenizer,
  prompt: bytes = b'',
  seed: int = 0,
  temperature: float = 1.0,
) -> Iterator[bytes]:
  """What follows the prompt, without end: the bytes of a window as soon as it is sampled.

  Tokens are drawn one by one from the model's distribution among those that can still become a
  window that agrees with the bytes held back.

  Args:
    read: the model at the begin of a text; it gets the id `vocab_size` first.
    tokenizer: of the model; see `pieces`.
    prompt: any bytes.
    seed: of the draws.
    temperature: divides the logits; 0 takes the likeliest token.

  Raises:
    InputError: a tokenizer without pieces, or none that agrees with the bytes held back.
  """
  windows = pieces(tokenizer)
  kept, held = hold_back(tokenizer, prompt, windows.tokens.shape[1])
  random = np.random.default_rng(seed)
  logits = read(tokenizer.vocab_size)
  for token in kept.tolist():
    logits = read(token)
  while True:
    open_ = np.flatnonzero(windows.agree(held)) if held else np.arange(len(windows.texts))
    if not open_.size:
      raise InputError(
        f'no window of this {tokenizer.family} tokenizer stands for {held[:20]!r}, for its mode is '
        'not lossless: use one that is'
      )
    for place in range(windows.tokens.shape[1]):
      column = windows.tokens[open_, place]
      token = _draw(logits, np.unique(column), random, temperature)
      open_ = open_[column == token]
      logits = read(token)
    text = windows.texts[int(open_[0])]
    if more := text[len(held) :]:
      yield more
    held = held[len(text) :]


def _draw(
  logits: np.ndarray, allowed: np.ndarray, random: np.random.Generator, temperature: float
) -> int:
  """One of the `allowed` ids."""
  scores = np.asarray(logits, np.float64)[allowed]
  if temperature > 0:  # the largest of scores with Gumbel noise is a draw by their softmax
    scores = scores / temperature + random.gumbel(size=scores.size)
  return int(allowed[scores.argmax()])


def as_text(parts: Iterable[bytes]) -> Iterator[str]:
  """Bytes as they come as text as it comes: a character once whole, invalid UTF-8 as U+FFFD."""
  decoder = codecs.getincrementaldecoder('utf-8')('replace')
  for part in parts:
    if text := decoder.decode(part):
      yield text
  if text := decoder.decode(b'', final=True):
    yield text
