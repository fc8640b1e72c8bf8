# SPDX-License-Identifier: Apache-2.0
"""Table `languages`: the old model in another language, with a part of a dictionary.

The other language is the old one with its words exchanged, so its dictionary is known exactly; or
texts and a dictionary are given.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.recipe import Pictures, Run, Table
from experiments.transplant import learning, replacement, scoring
from experiments.transplant.scoring import Scores
from lib import stats
from lib.data import excerpts, relexified, sources
from lib.data.excerpts import Excerpts
from lib.data.relexified import Relexified
from lib.data.sources import Source
from lib.errors import InputError
from lib.language_model import TrainedModel
from lib.report import plots
from lib.report.results import Row, Rows, select
from lib.tokenizers import registry
from lib.tokenizers.base import Dictionary
from lib.transplant import pieces, vectors
from lib.transplant.vectors import Words

PLAIN = ('random', 'mean', 'parts')  # methods that need no dictionary


def measure(config: ConfigDict, run: Run) -> list[Row]:
  """Transplants the old model to the other language by each method, and scores all models."""
  options, rows, curves = config.languages, Rows('languages'), Rows('languages_learning')
  language = Language(config)
  old, new = scoring.old_tokenizer(config), language.tokenizer
  before = scoring.train(config, run, 'transplant/old', old, scoring.old_text(config))
  models = [one.model for one in before]
  unchanged = scoring.score(models, scoring.held_out(config), np.zeros(old.vocab_size, bool))
  is_new = pieces.match(old, new) < 0
  scratch = scoring.train_from_scratch(
    config,
    run,
    'languages/scratch',
    new,
    language.train,
    config.scratch.steps,
    validation=language.validation,
    text=options.texts,
  )
  ends, found = learning.ends(scratch), dict[tuple[str, str, int], Scores]()
  learning.add(curves, {'method': 'scratch', 'dictionary': '0'}, ends)
  for step, fitted in scratch.items():
    found['scratch', '0', step] = scoring.score(
      [one.model for one in fitted], language.test, is_new
    )
  for share in ('0', *map(str, options.shares)):
    arms: Sequence[str] = PLAIN if share == '0' else ('wechsel',)
    if share == '100' and not options.texts:
      arms = ('wechsel', 'known')
    given = language.vectors(old, int(share) / 100) if share != '0' else None
    makers = replacement.Makers(config, old, new, given=given or _nothing(old, new))
    for method in arms:
      if method == 'known':
        made = language.known(models, old)
      else:  # equal pieces of two languages differ in meaning: WECHSEL copies none
        made, *_ = makers.make(method, models, copy_exact=method != 'wechsel')
      found[method, share, 0] = scoring.score(made, language.test, is_new)
      at = {'method': method, 'dictionary': share}
      for step in options.steps if method in options.continued else ():
        watched = step == max(options.steps)
        fitted = replacement.continued(
          config,
          run,
          new,
          language.train,
          at,
          made,
          step,
          'languages',
          language.validation if watched else None,
          options.texts,
        )
        if watched:
          learning.add_speed(curves, at, fitted, ends)
        found[method, share, step] = scoring.score(
          [one.model for one in fitted], language.test, is_new
        )
  for (method, share, step), scores in found.items():
    where: dict[str, Any] = {'method': method, 'dictionary': share, 'step': step}
    rows.add(where, 'bits_per_byte', stats.crossed(scores.bits), 'bits/byte')
    ratio = float(scores.bits.mean() / unchanged.bits.mean())
    rows.add(where, 'ratio_to_old', ratio, '', 'over the old model on text of the old language')
  for step in (0, *options.steps):
    trained = {
      one: scores for one, scores in found.items() if one[2] == step and one[0] != 'scratch'
    }
    bits = {one[:2]: scores.bits for one, scores in trained.items()}
    for reference in PLAIN:
      if (reference, '0') in bits and len(bits) > 1:
        gaps = stats.arms(bits, (reference, '0'), replacement.PAIRED)
        for (method, share), gap in gaps.items():
          where = dict(method=method, dictionary=share, step=step)
          rows.add(where, f'bits_above_{reference}', gap, 'bits/byte')
  return [*rows, *curves]


def _nothing(old: Dictionary, new: Dictionary) -> tuple[np.ndarray, np.ndarray]:
  """Vectors of zeros, for methods that use none."""
  return np.zeros((old.vocab_size, 1), np.float32), np.zeros((new.vocab_size, 1), np.float32)


class Language:
  """The other language: its text, tokenizer and dictionary.

  Attributes:
    train: documents.
    validation: documents of learning curves.
    test: the text on which models are scored.
    words: the dictionary, old word -> new word.
    tokenizer: as large as the old one, learned from its training text.
  """

  def __init__(self, config: ConfigDict):
    self._config, options = config, config.languages
    opened = {
      split: sources.open_source(options.texts or config.data.source, split)
      for split in ('train', 'validation', 'test')
    }
    if options.texts:
      self.words = vectors.read_dictionary(options.dictionary)
    else:
      known = [opened[split][i] for split in opened for i in range(len(opened[split]))]
      self.words = relexified.bijection(known, config.seed)
      opened = {split: Relexified(source, self.words) for split, source in opened.items()}
    self.train: Source = opened['train']
    self.validation: Source = opened['validation']
    sizes = config.held_out
    self.test: Excerpts = excerpts.take(
      opened['test'], length=sizes.length, count=max(1, sizes.bytes // sizes.length),
      most=scoring.MOST,
    )  # fmt: skip
    documents = sources.sample(self.train, config.old.train_bytes)
    trained = registry.train(config.old.family, documents, config.old.vocab_size)
    self.tokenizer = pieces.dictionary(trained, 'new')

  def vectors(self, old: Dictionary, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the pieces of both languages, aligned by a share of the dictionary.

    The texts of the two languages are different documents.
    """
    pairs = _part(self.words, share, self._config.seed)
    return vectors.aligned(old, self.tokenizer, *self._known_words, pairs)

  @functools.cached_property
  def _known_words(self) -> tuple[Words, Words]:
    """Vectors of the words of both languages."""
    texts, dim = _different_texts(self._config, self.train), self._config.vectors.dim
    return vectors.of_words(texts[0], dim), vectors.of_words(texts[1], dim)

  def known(self, models: Sequence[TrainedModel], old: Dictionary) -> list[TrainedModel]:
    """The models with the rows of translated pieces; other pieces have the mean of their parts.

    A piece that is a whole word is translated by the dictionary.
    """
    back = {new: word for word, new in self.words.items()}
    place = {piece: i for i, piece in reversed([*enumerate(old.pieces)])}
    made, *_ = replacement.Makers(
      self._config, old, self.tokenizer, given=_nothing(old, self.tokenizer)
    ).make('parts', models)
    found = []
    for model, one in zip(models, made, strict=True):
      before, after = model.embedding_tables(), one.embedding_tables()
      tables = [np.array(table) for table in after[:2]]
      for i, piece in enumerate(self.tokenizer.pieces):
        translated = relexified.relexify(piece, back)
        if relexified.WORD.search(piece) and translated in place:
          for table, source in zip(tables, before[:2], strict=True):
            table[i] = source[place[translated]]
      found.append(
        one.with_tables(after._replace(input=tables[0], output=tables[1]), self.tokenizer)
      )
    return found


def _part(words: Mapping[bytes, bytes], share: float, seed: int) -> dict[bytes, bytes]:
  """A share of a dictionary."""
  every = sorted(words)
  order = np.random.default_rng(seed).permutation(len(every))
  kept = [every[i] for i in order[: max(1, round(share * len(every)))]]
  return {word: words[word] for word in kept}


def _different_texts(config: ConfigDict, new: Source) -> list[list[bytes]]:
  """Documents of the old language, and others of the new one."""
  limit, both = config.vectors.bytes, (scoring.old_text(config), new)
  parts = [sources.Part(source, place, 2) for place, source in enumerate(both)]
  return [sources.sample(part, limit) for part in parts]


def check(config: ConfigDict) -> None:
  """Raises InputError for unknown methods, short texts, or texts without a dictionary."""
  replacement.check_own(config)
  options, methods = config.languages, (*PLAIN, 'wechsel', 'known')
  if unknown := [one for one in options.continued if one not in methods]:
    raise InputError(f'languages.continued: {unknown[0]!r} is not one of {", ".join(methods)}.')
  if bool(options.texts) != bool(options.dictionary):
    raise InputError('give both languages.texts and languages.dictionary, or neither.')
  if options.texts:
    words, new = vectors.read_dictionary(options.dictionary), options.texts
    scoring.excerpts_of(config, new)
    texts = _different_texts(config, sources.open_source(new, 'train'))
    common = [vectors.common_words(some) for some in texts]
    pairs = _part(words, min(options.shares) / 100, config.seed).items()
    known = sum(one in common[0] and other in common[1] for one, other in pairs)
    if known < config.vectors.dim:
      raise InputError(
        f'languages.dictionary: at {min(options.shares)} %, {known} of its pairs have two words '
        f'that are common in the texts; vectors.dim={config.vectors.dim} needs as many.'
      )


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Bits per byte against steps."""
  points = learning.by_steps(select(rows, 'languages', 'bits_per_byte'))
  panel = plots.row_curves('Another language', 'steps', 'bits per byte', points)
  caption = (
    'Bits per byte in the other language before and after continued training in it, and how many '
    'times fewer steps a transplanted model takes than one from scratch.'
  )
  found = [panel] if points else []
  found += learning.panels(rows, 'languages_learning')
  return {'languages.png': plots.Picture(caption, found)}


TABLE = Table(
  'languages',
  measure,
  'The old model in another language: the old one with all words exchanged by a random bijection '
  '(or given texts), a tokenizer learned from it, and a share of the dictionary in percent. '
  '`known` has the rows of translated tokens. `scratch` is trained in the new language from '
  'random weights for `step` steps. `wechsel` copies no row of a token that is in a word. '
  'Continued training is on text of the new language. Differences are paired by seed and document.',
  ('bits_per_byte', 'ratio_to_old', 'bits_above_random', 'bits_above_mean'),
  check=check,
  pictures=pictures,
  also={'languages_learning': (learning.CAPTION, learning.COLUMNS)},
  sources=lambda config: (config.data.source, *filter(None, [config.languages.texts])),
)
