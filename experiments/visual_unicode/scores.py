# SPDX-License-Identifier: Apache-2.0
"""Bits per byte of held-out text by document, the unit of every error."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.visual_unicode.text import HeldOut
from lib import stats
from lib.data.ngram_text import NgramText
from lib.evals.ngram import NGram
from lib.train.experiment import Batch, Variables

# (variables, batch) -> nats [B, T] of the targets.
TokenNats = Callable[[Any, Batch], jax.Array]


def row_nats(token_nats: TokenNats) -> Callable[[Any, HeldOut], np.ndarray]:
  """(variables, held-out text) -> nats of each excerpt, float64 [N]."""

  @jax.jit
  def of_batch(variables: Variables, batch: Batch) -> jax.Array:
    return jnp.where(batch['segments'] > 0, token_nats(variables, batch), 0.0).sum(axis=-1)

  def score(variables: Variables, held_out: HeldOut) -> np.ndarray:
    parts = [np.asarray(of_batch(variables, batch)) for batch in held_out.batches]
    return np.concatenate(parts)[: len(held_out.documents)].astype(np.float64)

  return score


def bits_by_document(nats: Sequence[np.ndarray], held_out: HeldOut) -> np.ndarray:
  """What each document adds to bits per byte, [S, D]: their mean is that of all the text.

  Args:
    nats: of each excerpt, [N], for each of S models.
    held_out: the excerpts.
  """
  above = stats.by_group(np.stack(nats), held_out.documents)
  below = stats.by_group(held_out.bytes, held_out.documents)
  return stats.contributions(above, below) / np.log(2)


def law_nats(source: NgramText, held_out: HeldOut) -> np.ndarray:
  """Nats of each excerpt, [N], under the exact law of a source, which reads whole documents."""
  of_document = functools.cache(lambda index: source.nats(source[index]))
  assert held_out.starts is not None
  ends = held_out.starts + held_out.bytes.astype(np.int64)
  places = zip(held_out.documents.tolist(), held_out.starts, ends, strict=True)
  return np.array([of_document(index)[start:end].sum() for index, start, end in places])


def unigram_nats(counted: np.ndarray, vocab_size: int, held_out: HeldOut) -> np.ndarray:
  """Nats of each excerpt, [N], by the token unigram of a text: no input is read.

  Args:
    counted: ids of training text.
    vocab_size: of the tokenizer.
    held_out: the excerpts.
  """
  of_id = NGram(counted, 0, vocab_size).nats(np.arange(vocab_size))
  rows = [np.where(one['segments'] > 0, of_id[one['targets']], 0.0) for one in held_out.batches]
  return np.concatenate(rows)[: len(held_out.documents)].sum(axis=1)
