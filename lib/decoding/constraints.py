# SPDX-License-Identifier: Apache-2.0
"""Constraints on the ids that are sampled next, as an automaton over ids.

A prompt rarely ends at a token boundary, and its last tokens would imply that the text ends there.
So the tokens that a further byte could change are held back, and sampled again among tokens that
spell the held-back bytes: the text continues the prompt's exact bytes. This is for tokenizers whose
encodings cannot be followed, such as windows of arithmetic codes; for all others a cover of the
prompt is sampled, which has no bias (`lib.language_model.prompts`). A window is the smallest number
of tokens with their own text; for an ordinary tokenizer it is one token.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lib.errors import InputError
from lib.tokenizers.base import Dictionary, Tokenizer


class Constraint(NamedTuple):
  """A deterministic automaton over ids.

  Attributes:
    next_state: int32 [states, V], the state after each id; −1 where the id is not allowed. Each
      state allows one id or more.
    start: int32 [B], the state of each text before its first sampled token.
  """

  next_state: np.ndarray
  start: np.ndarray


def allow(ids: Sequence[int] | np.ndarray, vocab_size: int, texts: int) -> Constraint:
  """A constraint that allows only these ids at every place, for a number of texts.

  Raises:
    InputError: no id.
  """
  table = np.full((1, vocab_size), -1, np.int32)
  table[0, np.asarray(ids, int)] = 0
  if table.max() < 0:
    raise InputError('at least one id must be allowed.')
  return Constraint(table, np.zeros(texts, np.int32))


@dataclasses.dataclass(frozen=True)
class Pieces:
  """The texts of a tokenizer's windows.

  Attributes:
    tokens: int32 [n, tokens of a window], all rows different.
    texts: the bytes of each; none is empty.
  """

  tokens: np.ndarray
  texts: list[bytes]


def pieces(tokenizer: Tokenizer) -> Pieces:
  """The windows of a tokenizer, each of which has its own text.

  Raises:
    InputError: a tokenizer whose tokens have no text without the tokens before them.
  """
  tokens, texts = tokenizer.windows()
  some = np.flatnonzero([len(text) > 0 for text in texts])
  return Pieces(tokens[some], [texts[i] for i in some.tolist()])


def hold_back(tokenizer: Tokenizer, prompt: bytes, window: int = 1) -> tuple[np.ndarray, bytes]:
  """The prompt's tokens that no later byte can change, and the bytes after them.

  Args:
    tokenizer: of the model.
    prompt: any bytes.
    window: tokens of a window; only whole windows are kept.

  Raises:
    InputError: the tokens kept do not spell the prompt's beginning, in a mode that is not lossless.
  """
  ids = tokenizer.encode(prompt)
  kept = ids.size
  for byte in tokenizer.alphabet if isinstance(tokenizer, Dictionary) else range(256):
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


def spell(windows: Pieces, held: Sequence[bytes], vocab_size: int) -> Constraint:
  """A constraint to whole windows: the first spell the bytes held back, any may follow.

  A window may end within the bytes held back, or spell more than them.

  Args:
    windows: of the tokenizer.
    held: bytes of each text, B of them.
    vocab_size: V of the model, at least the tokenizer's.

  Raises:
    InputError: no windows spell these bytes.
  """
  states = {b'': 0}  # a state for each rest of the held-back bytes; b'' allows every window
  for rest in held:
    states.setdefault(rest, len(states))
  edges: list[np.ndarray] = []  # columns: from, id, to
  inner = -2  # states within a window are −2, −3, … until the others are known
  waiting = list(states)
  for rest in waiting:  # which grows
    agree = [i for i, t in enumerate(windows.texts) if t.startswith(rest) or rest.startswith(t)]
    goals = []
    for i in agree:
      after = rest[len(windows.texts[i]) :]
      if after not in states:
        states[after] = len(states)
        waiting.append(after)
      goals.append(states[after])
    *first, last = windows.tokens[agree].T
    here = np.full(len(agree), states[rest])
    for column in first:
      steps, which = np.unique(np.stack([here, column], 1), axis=0, return_inverse=True)
      made = inner - np.arange(len(steps))
      edges.append(np.column_stack([steps, made]))
      here, inner = made[which], inner - len(steps)
    edges.append(np.column_stack([here, last, np.array(goals, int)]))
  joined = np.concatenate(edges)
  for column in (0, 2):
    joined[:, column] = np.where(joined[:, column] < 0, len(states) - 2 - joined[:, column],
                                 joined[:, column])  # fmt: skip
  table = np.full((len(states) - 2 - inner, vocab_size), -1, np.int32)
  table[joined[:, 0], joined[:, 1]] = joined[:, 2]
  while True:  # no step leads to a state that allows nothing
    stuck = np.asarray((table < 0).all(axis=1))
    leads = (table >= 0) & stuck[table]
    if not leads.any():
      break
    table[leads] = -1
  start = np.array([states[rest] for rest in held], np.int32)
  for state, rest in zip(start, held):
    if stuck[state]:
      raise InputError(
        f'no windows of this tokenizer spell {rest[:20]!r}, for its mode is not lossless: use one '
        'that is'
      )
  return Constraint(table, start)
