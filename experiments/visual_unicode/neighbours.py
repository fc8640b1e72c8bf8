# SPDX-License-Identifier: Apache-2.0
"""Who stands next to whom: input rows, by form, and final hidden states, by meaning.

The hidden state of a token is the mean of the final states after it, over test text.
"""

import functools
import io
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import loss, models, text
from lib.embeddings.glyph_rows import unit
from lib.errors import InputError
from lib.report.results import Row, mean_and_sem, name

CAPTION = (
  'The nearest neighbour (cosine) of each frequent token: among input rows, and among mean final '
  'hidden states after the token. `alike` is the cosine of the two pictures; `same_class` the '
  'share of neighbours of the same Unicode categories, `case_pair` of letters that have their '
  'other case there and find it. `chance` takes neighbours at random.'
)
SUMMARY = ('', ('alike', 'same_class', 'case_pair'))
MAPS = 'neighbours.npz'  # in the workdir, for the pictures


def check(config: ConfigDict) -> None:
  """Raises InputError for arms and counts that cannot be had, and whatever `loss` cannot have."""
  loss.check(config)
  for arm in config.neighbours.arms:
    if arm not in models.ARMS:
      raise InputError(f'neighbours.arms: {arm!r} is not one of {", ".join(models.ARMS)}.')
  if config.neighbours.tokens < 2:
    raise InputError(f'neighbours.tokens must be 2 or more; got {config.neighbours.tokens}.')


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Neighbours in the spaces of every arm; keeps a map of the first seed's for the picture."""
  opened = text.open_text(config)
  batches = text.held_out(opened, config.loss, 'test', config.loss.test)
  ids = frequent(batches, opened.tokenizer.vocab_size, config.neighbours.tokens)
  written = [opened.tokenizer.decode([i]).decode('utf-8', 'replace') for i in ids]
  pictures = models.glyph(opened.glyphs, config.loss.dim)[ids]
  alike = unit(pictures) @ unit(pictures).T
  rows = _rows('space=chance', [_chance(alike, written)])
  maps = {'glyph rows': plane(pictures)}
  rows += _rows('space=glyph_rows', [judge(pictures, alike, written)])
  for arm in config.neighbours.arms:
    trained = loss.fit(config, run, arm)
    if not models.ARMS[arm].frozen:
      tables = [np.asarray(one.variables['params']['embedding']['table'])[ids] for one in trained]
      found = [judge(vectors, alike, written) for vectors in tables]
      rows += _rows(name(space='rows', arm=arm), found)
      maps[f'{arm}: rows'] = plane(tables[0])
    apply = jax.jit(functools.partial(trained[0].model.apply, method='hidden'))
    states = [hidden(functools.partial(apply, one.variables), batches, ids) for one in trained]
    found = [judge(vectors, alike, written) for vectors in states]
    rows += _rows(name(space='hidden', arm=arm), found)
    maps[f'{arm}: hidden states'] = plane(states[0])
  kept = io.BytesIO()
  np.savez(kept, allow_pickle=False, tokens=np.array(written), **maps)
  run.keep(MAPS, kept.getvalue())
  return rows


def frequent(batches: Sequence[Mapping[str, np.ndarray]], vocab_size: int, most: int) -> np.ndarray:
  """The most frequent input tokens, ascending; each occurs."""
  counts = np.zeros(vocab_size + 1, np.int64)
  for batch in batches:
    counts += np.bincount(batch['inputs'][batch['segments'] > 0], minlength=vocab_size + 1)
  order = np.argsort(-counts[:vocab_size], kind='stable')[:most]
  return np.sort(order[counts[order] > 0])


def hidden(
  apply: Callable, batches: Sequence[Mapping[str, np.ndarray]], ids: np.ndarray
) -> np.ndarray:
  """Mean final hidden vectors [N, D] after each of some tokens, less the mean of all.

  `apply` takes a batch and no draw to (final hidden vectors, residual streams).
  """
  total, counts = 0.0, np.zeros(ids.size)
  for batch in batches:
    vectors = np.asarray(apply(batch, None)[0], np.float32)
    real = batch['segments'] > 0
    is_token = (batch['inputs'][real][:, None] == ids[None]).astype(np.float32)
    total = total + is_token.T @ vectors[real]
    counts += is_token.sum(axis=0)
  means = total / counts[:, None]
  return means - means.mean(axis=0, keepdims=True)


def judge(vectors: np.ndarray, alike: np.ndarray, written: Sequence[str]) -> dict[str, float]:
  """How like their nearest neighbours tokens are, by form and by class."""
  near = unit(vectors) @ unit(vectors).T
  np.fill_diagonal(near, -np.inf)
  nearest = near.argmax(axis=1)
  same = [kind(one) == kind(written[i]) for one, i in zip(written, nearest, strict=True)]
  paired = [
    written[i] == one.swapcase()
    for one, i in zip(written, nearest, strict=True)
    if one.swapcase() != one and one.swapcase() in written
  ]
  return {
    'alike': float(alike[np.arange(len(nearest)), nearest].mean()),
    'same_class': float(np.mean(same)),
  } | ({'case_pair': float(np.mean(paired))} if paired else {})


def _chance(alike: np.ndarray, written: Sequence[str]) -> dict[str, float]:
  """What a neighbour drawn at random would give."""
  count = len(written)
  kinds = np.array([kind(one) for one in written])
  others = ~np.eye(count, dtype=bool)
  known = any(one.swapcase() != one and one.swapcase() in written for one in written)
  return {
    'alike': float(alike[others].mean()),
    'same_class': float((kinds[:, None] == kinds[None])[others].mean()),
  } | ({'case_pair': 1 / (count - 1)} if known else {})


def kind(written: str) -> str:
  """The Unicode categories of a token's characters, such as Lu or LlLl."""
  return ''.join(unicodedata.category(character) for character in written)


def plane(vectors: np.ndarray) -> np.ndarray:
  """The first two principal components [N, 2] of unit vectors."""
  centred = unit(vectors) - unit(vectors).mean(axis=0)
  left, scale, _ = np.linalg.svd(centred, full_matrices=False)
  return left[:, :2] * scale[:2]


def _rows(row: str, found: Sequence[Mapping[str, float]]) -> list[Row]:
  return [
    Row('neighbours', row, column, *mean_and_sem([one[column] for one in found]),
        unit='cosine' if column == 'alike' else 'ratio')
    for column in found[0]
  ]  # fmt: skip
