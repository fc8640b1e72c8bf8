# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours of tokens by form, and of words by word class.

Form can be read from the input rows alone. The class of a word, such as preposition or numeral,
cannot be seen in its letters: so it is measured among words of one form, lower-case ones of nearly
equal length, and compared with three baselines that have the form and no learned meaning.
"""

import functools
import io
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import loss, models, text
from experiments.visual_unicode.models import Trained
from lib import stats
from lib.data.word_classes import word_classes
from lib.embeddings.glyph_rows import unit
from lib.errors import InputError
from lib.report.results import Row, name
from lib.tokenizers.base import Tokenizer

CAPTION = (
  'The nearest neighbour (cosine) of each frequent token: among input rows, and among mean final '
  'hidden states after the token. `alike` is the cosine of the two pictures; `same_form` the share '
  'of neighbours of the same Unicode categories, `case_pair` of letters that have their other case '
  'there and find it; `chance` takes neighbours at random. `same_word_class`: for each word of the '
  'closed word classes (English function words, numerals, Python keywords) that is one token, the '
  'share of its nearest neighbours of its own class, among lower-case words whose lengths differ '
  'by at most one. Its `hidden` states are those that predict the next word, `noise` is the rows '
  'with Gaussian noise that takes their cosines as far from the rows’ as those of the hidden '
  'states are (equal correlation), `untrained` the hidden states of the same model before training.'
)
SUMMARY = ('', ('alike', 'same_form', 'case_pair', 'same_word_class', 'difference_same_word_class'))
MAPS = 'neighbours.npz'  # in the workdir, for the pictures
NEAREST = 3  # neighbours whose word classes are compared with the word's
LONGER = 1  # letters by which words of one form may differ in length
WORDS = 'seeds×words'
BASELINES = ('rows', 'noise', 'untrained')  # of the hidden states: form without learned meaning
Batches = Sequence[Mapping[str, np.ndarray]]


class Words(NamedTuple):
  """Words that are one token each.

  Attributes:
    written: W words in lower case.
    ids: [W], their tokens.
    classes: [W], the class of each, as a number.
  """

  written: list[str]
  ids: np.ndarray
  classes: np.ndarray


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
  batches = text.held_out(opened, config.loss, 'test', config.loss.test).batches
  ids = frequent(batches, opened.tokenizer.vocab_size, config.neighbours.tokens)
  written = [(opened.tokenizer.token_bytes(i) or b'').decode('utf-8', 'replace') for i in ids]
  pictures = models.glyph(opened.glyphs, config.loss.dim)[ids]
  alike = unit(pictures) @ unit(pictures).T
  rows = [
    Row('neighbours', 'space=chance', column, value, unit=_unit(column))
    for column, value in _chance(alike, written).items()
  ]
  maps = {'glyph rows': plane(pictures)}
  rows += _rows('space=glyph_rows', [judge(pictures, alike, written)])
  words = known_words(opened.tokenizer, batches, config.neighbours.occurrences)
  rows.append(_chance_of_class(words))
  for arm in config.neighbours.arms:
    trained = loss.fit(config, run, arm)
    seeds = range(config.seed, config.seed + len(trained))
    before = models.untrained(trained[0].model, batches[0], seeds)
    if not models.ARMS[arm].frozen:
      tables = [_table(arm, one)[ids] for one in trained]
      rows += _rows(name(space='rows', arm=arm), [judge(one, alike, written) for one in tables])
      maps[f'{models.LABELS[arm]}: rows'] = plane(tables[0])
    apply = jax.jit(functools.partial(trained[0].model.apply, method='hidden'))
    final = lambda one, apply=apply: functools.partial(apply, one.variables)
    states = [hidden(final(one), batches, ids) for one in trained]
    rows += _rows(name(space='hidden', arm=arm), [judge(one, alike, written) for one in states])
    maps[f'{models.LABELS[arm]}: hidden states'] = plane(states[0])
    if len(words.written) > NEAREST:
      of = functools.partial(word_states, opened.tokenizer, batches, words)
      after, untrained = ([of(final(one)) for one in several] for several in (trained, before))
      tables = [_table(arm, one)[words.ids] for one in trained]
      rows += _word_rows(arm, words, after, tables, untrained)
  kept = io.BytesIO()
  np.savez(kept, allow_pickle=False, tokens=np.array(written), **maps)
  run.keep(MAPS, kept.getvalue())
  return rows


def _table(arm: str, trained: Trained) -> np.ndarray:
  """The input rows [V, D] of a model."""
  collection = 'frozen' if models.ARMS[arm].frozen else 'params'
  return np.asarray(trained.variables[collection]['embedding']['table'], np.float32)


def frequent(batches: Batches, vocab_size: int, most: int) -> np.ndarray:
  """The most frequent input tokens, ascending; each occurs."""
  counts = np.zeros(vocab_size + 1, np.int64)
  for batch in batches:
    counts += np.bincount(batch['inputs'][batch['segments'] > 0], minlength=vocab_size + 1)
  order = np.argsort(-counts[:vocab_size], kind='stable')[:most]
  return np.sort(order[counts[order] > 0])


def hidden(apply: Callable, batches: Batches, ids: np.ndarray) -> np.ndarray:
  """Mean final hidden vectors [N, D] after each of some tokens, less the mean of all.

  `apply` takes a batch and no key to (final hidden vectors, residual streams).
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


def judge(vectors: np.ndarray, alike: np.ndarray, written: Sequence[str]) -> dict[str, np.ndarray]:
  """How like its nearest neighbour each token is, by picture and by form.

  Returns:
    column -> a value for each token; `case_pair` only for letters whose other case is there.
  """
  near = unit(vectors) @ unit(vectors).T
  np.fill_diagonal(near, -np.inf)
  nearest = near.argmax(axis=1)
  same = [form(one) == form(written[i]) for one, i in zip(written, nearest, strict=True)]
  paired = [
    written[i] == one.swapcase()
    for one, i in zip(written, nearest, strict=True)
    if one.swapcase() != one and one.swapcase() in written
  ]
  return {
    'alike': alike[np.arange(len(nearest)), nearest],
    'same_form': np.array(same, float),
  } | ({'case_pair': np.array(paired, float)} if paired else {})


def _chance(alike: np.ndarray, written: Sequence[str]) -> dict[str, float]:
  """What a random neighbour would be like: exact means over all pairs."""
  count = len(written)
  forms = np.array([form(one) for one in written])
  others = ~np.eye(count, dtype=bool)
  known = any(one.swapcase() != one and one.swapcase() in written for one in written)
  return {
    'alike': float(alike[others].mean()),
    'same_form': float((forms[:, None] == forms[None])[others].mean()),
  } | ({'case_pair': 1 / (count - 1)} if known else {})


def form(written: str) -> str:
  """The Unicode categories of a token's characters, such as Lu or LlLl."""
  return ''.join(unicodedata.category(character) for character in written)


def plane(vectors: np.ndarray) -> np.ndarray:
  """The first two principal components [N, 2] of unit vectors."""
  centred = unit(vectors) - unit(vectors).mean(axis=0)
  left, scale, _ = np.linalg.svd(centred, full_matrices=False)
  return left[:, :2] * scale[:2]


def _unit(column: str) -> str:
  return 'cosine' if column == 'alike' else 'ratio'


def _rows(row: str, found: Sequence[Mapping[str, np.ndarray]]) -> list[Row]:
  """Means over seeds and tokens; one space without seeds has its error over tokens."""
  rows = []
  for column in found[0]:
    values = np.stack([one[column] for one in found])
    single = len(values) == 1
    estimate = stats.mean(values[0], 'tokens') if single else stats.crossed(values, 'seeds×tokens')
    rows.append(Row.of('neighbours', row, column, estimate, unit=_unit(column)))
  return rows


# Word classes.


def known_words(tokenizer: Tokenizer, batches: Batches, at_least: int) -> Words:
  """Words of the closed classes that are one token and occur whole `at_least` times."""
  classes = word_classes()
  encoded = {word: tokenizer.encode(word.encode()) for word in classes}
  single = {word: int(ids[0]) for word, ids in encoded.items() if len(ids) == 1}
  ids = np.array(list(single.values()), np.int64)
  counts = sum(found.sum(axis=0) for _, found in occurrences(tokenizer, batches, ids))
  kept = [word for word, count in zip(single, counts, strict=True) if count >= at_least]
  names = sorted(set(classes.values()))
  return Words(
    kept,
    np.array([single[word] for word in kept], np.int64),
    np.array([names.index(classes[word]) for word in kept], np.int64),
  )


def occurrences(
  tokenizer: Tokenizer, batches: Batches, ids: np.ndarray
) -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray]]:
  """For each batch the places of whole words before a space, and which word each is.

  A word is whole if no letter, digit or underscore precedes it.

  Yields:
    (rows [K] and columns [K] of the places, bool [K, W] which of the words `ids` each is).
  """
  pieces = [tokenizer.token_bytes(i) or b'' for i in range(tokenizer.vocab_size)]
  joins = np.array([re.search(rb'[\w\x80-\xff]$', one) is not None for one in pieces] + [False])
  space = int(tokenizer.encode(b' ')[0])
  for batch in batches:
    inputs, real = batch['inputs'], batch['segments'] > 0
    whole = np.zeros(inputs.shape, bool)
    whole[:, 1:-1] = ~joins[inputs[:, :-2]] & (inputs[:, 2:] == space) & real[:, 2:]
    places = np.nonzero(whole & np.isin(inputs, ids))
    yield places, inputs[places][:, None] == ids[None]


def word_states(
  tokenizer: Tokenizer, batches: Batches, words: Words, apply: Callable
) -> np.ndarray:
  """Mean final hidden vectors [W, D] after each word and its space: they predict the next word.

  `apply` takes a batch and no key to (final hidden vectors, residual streams).
  """
  total, counts = 0.0, np.zeros(len(words.ids))
  found = occurrences(tokenizer, batches, words.ids)
  for batch, ((row, column), is_word) in zip(batches, found, strict=True):
    vectors = np.asarray(apply(batch, None)[0], np.float64)
    total = total + is_word.T.astype(float) @ vectors[row, column + 1]
    counts += is_word.sum(axis=0)
  return total / counts[:, None]


def agreement(vectors: np.ndarray, words: Words) -> np.ndarray:
  """For each word the share of its nearest neighbours of one form that are of its class, [W]."""
  near = cosines(vectors)
  near[~_one_form(words)] = -np.inf
  np.fill_diagonal(near, -np.inf)
  nearest = np.argsort(-near, axis=1, kind='stable')[:, :NEAREST]
  there = np.isfinite(np.take_along_axis(near, nearest, axis=1))
  same = (words.classes[nearest] == words.classes[:, None]) & there
  return same.sum(axis=1) / np.maximum(there.sum(axis=1), 1)


def cosines(vectors: np.ndarray) -> np.ndarray:
  """Cosines [W, W] of vectors less their mean."""
  centred = unit(np.asarray(vectors, np.float64) - np.mean(vectors, axis=0, dtype=np.float64))
  return centred @ centred.T


def similarity(one: np.ndarray, other: np.ndarray) -> float:
  """Correlation over all pairs of words of their cosines in one space and in another."""
  pairs = np.triu_indices(len(one), 1)
  return float(np.corrcoef(cosines(one)[pairs], cosines(other)[pairs])[0, 1])


def noisy(rows: np.ndarray, target: float, seed: int) -> np.ndarray:
  """Rows with Gaussian noise whose `similarity` to the rows is `target`, or as near as can be.

  So they are as far from the rows as a space of that similarity, in a direction that means nothing.
  """
  noise = np.std(rows) * np.random.default_rng(seed).standard_normal(rows.shape)
  low, high = -10.0, 10.0  # the logarithm of the noise's scale
  for _ in range(40):
    middle = (low + high) / 2
    if similarity(rows, rows + np.exp(middle) * noise) > target:
      low = middle
    else:
      high = middle
  return rows + np.exp(high) * noise


def _word_rows(
  arm: str,
  words: Words,
  states: Sequence[np.ndarray],
  tables: Sequence[np.ndarray],
  first: Sequence[np.ndarray],
) -> list[Row]:
  """Word classes in each space, and hidden states less each baseline, paired by seed and word."""
  noise = [
    noisy(rows, similarity(rows, state), seed)
    for seed, (rows, state) in enumerate(zip(tables, states, strict=True))
  ]
  spaces = {'hidden': states, 'rows': tables, 'noise': noise, 'untrained': first}
  found = {
    space: np.stack([agreement(vectors, words) for vectors in several])
    for space, several in spaces.items()
  }
  note = _about(words)
  put = lambda row, column, values: Row.of(
    'neighbours', row, column, stats.crossed(values, WORDS), unit='ratio', note=note
  )
  rows = [
    put(name(space=space, arm=arm, of='words'), 'same_word_class', values)
    for space, values in found.items()
  ]
  for space in BASELINES:
    row = name(space='hidden', arm=arm, against=space)
    rows.append(put(row, 'difference_same_word_class', found['hidden'] - found[space]))
  to_rows = [similarity(*pair) for pair in zip(tables, states, strict=True)]
  rows.append(
    Row.of('neighbours', name(space='hidden', arm=arm, of='words'), 'similarity_to_rows',
           stats.mean(to_rows), unit='correlation', note='of the cosines of all pairs of words')
  )  # fmt: skip
  return rows


def _chance_of_class(words: Words) -> Row:
  """The mean share of a word's class among all words of its form."""
  row, column = 'space=chance,of=words', 'same_word_class'
  if len(words.written) <= NEAREST:
    note = 'not measured: too few words of the closed classes are one token and occur often enough'
    return Row('neighbours', row, column, None, note=note)
  comparable = _one_form(words)
  np.fill_diagonal(comparable, False)
  same = (words.classes[:, None] == words.classes[None]) & comparable
  counts = comparable.sum(axis=1)
  chance = float((same.sum(axis=1)[counts > 0] / counts[counts > 0]).mean())
  return Row('neighbours', row, column, chance, unit='ratio', note=_about(words))


def _one_form(words: Words) -> np.ndarray:
  """Which pairs of words are nearly equal in length, bool [W, W]."""
  lengths = np.array([len(word) for word in words.written])
  return abs(lengths[:, None] - lengths[None]) <= LONGER


def _about(words: Words) -> str:
  return f'{len(words.written)} words of {len(set(words.classes.tolist()))} classes'
