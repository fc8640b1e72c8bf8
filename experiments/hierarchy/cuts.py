# SPDX-License-Identifier: Apache-2.0
"""Where a hierarchy cuts texts into chunks, held against the beginnings of words."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib.data.examples import Examples
from lib.evals import word_cuts
from lib.models.decoder import LanguageModel
from lib.models.hierarchy import STAGES
from lib.models.recurrence import ages
from lib.train.experiment import Variables

TOGETHER = 64  # texts that are cut at once


class Cuts(NamedTuple):
  """Where a hierarchy cuts N texts of T bytes.

  Attributes:
    begins: bool [N, T], the bytes that begin a chunk of the first stage.
    shares: of each stage, tokens that begin a chunk, over the texts.
    kept: of each stage, those that there was room for.
  """

  begins: np.ndarray
  shares: list[float]
  kept: list[float]

  @property
  def overflow(self) -> float:
    """Share of the first stage's chunks that had no room."""
    return 1 - self.kept[0] / self.shares[0]

  def against_words(self, texts: Sequence[bytes]) -> tuple[float, float]:
    """F1 of the cuts against the beginnings of words, and that of as many cuts at random.

    A cut at the byte before a word, such as its space, counts as one at the word. A text's first
    byte begins a chunk by rule and its last is not read, so both are left out.
    """
    words = np.stack([word_cuts.word_starts(text) for text in texts])[:, 1:-1]
    found = self.begins[:, 1:-1]
    right = word_cuts.f1(word_cuts.moved(found, words), words)
    return right, word_cuts.chance_f1(float(found.mean()), words)


def cut(model: LanguageModel, variables: Variables, bos: int, ids: np.ndarray) -> Cuts:
  """Where a hierarchy cuts texts of ids [N, T] of bytes.

  The model predicts a byte from those before it, so the last of T is not read.
  """
  inputs = np.concatenate([np.full((len(ids), 1), bos), ids[:, :-1]], axis=1).astype(np.int32)
  parts = range(0, len(inputs), TOGETHER)
  found = [jax.device_get(_sown(model)(variables, inputs[i : i + TOGETHER])) for i in parts]
  weights = [len(one['begins']) for one in found]
  mean = lambda name: np.average([one[name] for one in found], axis=0, weights=weights).tolist()
  begins = np.concatenate([one['begins'] for one in found])[:, 1:]  # input 0 is BOS
  return Cuts(np.pad(begins, ((0, 0), (0, 1))), mean('shares'), mean('kept'))


@functools.cache
def _sown(model: LanguageModel) -> Any:
  """(variables, inputs [N, T]) -> where chunks begin, and the shares of each stage."""

  @jax.jit
  def apply(variables: Variables, inputs: jax.Array) -> dict[str, Any]:
    ones = jnp.ones_like(inputs)
    batch = {'inputs': inputs, 'segments': ones, 'positions': ages(ones)}
    read = lambda bound, batch: bound.hidden(batch, None)[0]
    sown: Any = model.apply(variables, batch, method=read, mutable=('intermediates', 'metrics'))[1]
    part, shares, kept = sown['metrics']['decoder'], [], []
    for stage in STAGES:
      if 'chunks_per_token' + stage in part:
        [share], [over] = part['chunks_per_token' + stage], part['overflow_share' + stage]
        shares.append(share)
        kept.append(share * (1 - over))
      part = part.get('inner', {})
    [begins] = sown['intermediates']['decoder']['begins']
    return {'begins': begins, 'shares': shares, 'kept': kept}

  return apply


def of_validation(model: LanguageModel, corpus: Examples, variables: Variables) -> dict[str, Any]:
  """Chunks a byte and cuts at words of some validation texts, of each seed that trains."""
  some = [ids for (ids, _), _ in zip(corpus.validation, range(TOGETHER))]
  texts = corpus.text['validation'].texts[: len(some)]
  together = np.ndim(variables['params']['embedding']['bos']) > 1
  seeds = len(variables['params']['embedding']['bos']) if together else 1
  found: dict[str, list[float]] = {'chunks_per_byte': [], 'f1': [], 'f1_chance': []}
  for seed in range(seeds):
    one = jax.tree.map(lambda leaf, seed=seed: leaf[seed], variables) if together else variables
    cuts = cut(model, one, corpus.tokenizer.vocab_size, np.stack(some))
    for name, value in zip(found, (cuts.shares[0], *cuts.against_words(texts)), strict=True):
      found[name].append(value)
  return {name: np.array(values if together else values[0]) for name, values in found.items()}
