# SPDX-License-Identifier: Apache-2.0
"""Models of text that several tables share: trained once a corpus, vocabulary, embedding, seed."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import grain
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.lexinvariant import models
from lib.data import ciphers, pipeline, sources
from lib.errors import InputError
from lib.report.results import name
from lib.tokenizers import Characters, train_sentencepiece
from lib.tokenizers.base import Tokenizer

LETTERS = bytes(range(ord('a'), ord('z') + 1))
# Symbols of each vocabulary; documents are folded into them. The paper's characters are ASCII.
ALPHABETS = {'letters': LETTERS + b' \n', 'char': bytes(range(128)), 'bytes': bytes(range(256))}
SENTENCEPIECE = {'32k': 32_000}


class Corpus(NamedTuple):
  """Text and the symbols that it is made of.

  Attributes:
    data: name of the corpus.
    vocabulary: name of its symbols.
    source: what `open_source` takes.
    tokenizer: text to ids.
  """

  data: str
  vocabulary: str
  source: str
  tokenizer: Tokenizer

  @property
  def row(self) -> str:
    """Name of the corpus in the tables."""
    return name(data=self.data, vocabulary=self.vocabulary)

  @property
  def vocab_size(self) -> int:
    """V."""
    return self.tokenizer.vocab_size

  def documents(self, split: str) -> sources.Source:
    """Documents of a split, in the symbols of the vocabulary."""
    source = sources.open_source(self.source, split)
    return ciphers.Folded(source, alphabet) if (alphabet := self.alphabet) else source

  @property
  def alphabet(self) -> bytes | None:
    """The symbols where each is a byte."""
    return ALPHABETS.get(self.vocabulary)


def check(config: ConfigDict) -> None:
  """Raises InputError for text or models that cannot be had."""
  options, sizes = config.text, vocab_sizes()
  for vocabulary in options.vocabularies:
    if vocabulary not in sizes:
      raise InputError(
        f'text.vocabularies {vocabulary!r} is not one of {", ".join(sizes)}.'
      )  # fmt: skip
    models.check(options, 'text', sizes[vocabulary])
  if not options.corpora or not options.vocabularies:
    raise InputError('text.corpora and text.vocabularies must each name at least one.')
  for field in ('seeds', 'test_sequences', 'window'):
    if options[field] < 1:
      raise InputError(f'text.{field} must be 1 or more; got {options[field]}.')
  if options.window > options.test_length:
    raise InputError(
      f'text.window {options.window} is longer than text.test_length {options.test_length}; '
      'windows move within a sequence.'
    )
  for _, source in options.corpora:
    for split in ('train', 'validation', 'test'):
      sources.open_source(source, split)


def vocab_sizes() -> dict[str, int]:
  """V of each vocabulary, the largest first."""
  return SENTENCEPIECE | {key: len(ALPHABETS[key]) for key in ('bytes', 'char', 'letters')}


def plans(config: ConfigDict) -> dict[str, Callable[[], runner.Plan]]:
  """The models of text: of the largest vocabulary first, trained rows before random ones."""
  return {
    f'text/{name(vocabulary=key, embedding=kind)}': functools.partial(
      models.plan, config, config.text, kind, size
    )
    for key, size in vocab_sizes().items()
    if key in config.text.vocabularies
    for kind in models.EMBEDDINGS
  }


def corpora(config: ConfigDict) -> list[Corpus]:
  """Every corpus in every vocabulary."""
  return [
    Corpus(data, vocabulary, source, _tokenizer(source, vocabulary))
    for data, source in config.text.corpora
    for vocabulary in config.text.vocabularies
  ]


@functools.cache
def _tokenizer(source: str, vocabulary: str) -> Tokenizer:
  if alphabet := ALPHABETS.get(vocabulary):
    return Characters(alphabet)
  text = sources.sample(sources.open_source(source, 'train'), 2**27)
  return train_sentencepiece(text, SENTENCEPIECE[vocabulary], 'unigram')


def seeds(config: ConfigDict) -> range:
  """Seeds of the models."""
  return range(config.seed, config.seed + config.text.seeds)


def fit(
  config: ConfigDict, run: runner.Run, corpus: Corpus, kind: str, seed: int
) -> models.Trained:
  """A model of a corpus, trained now or by another table of this run."""
  options = config.text
  held = held_out(corpus, 'validation', options.test_length, 64)

  def validation(model):
    score = models.scorer(model, corpus.vocab_size)

    def evaluate(variables):
      nats = score(variables, held)
      late = nats[:, -(nats.shape[1] // 4) :]
      return {'perplexity': np.exp(nats.mean()), 'late_perplexity': np.exp(late.mean())}

    return evaluate

  return models.fit(
    config,
    run,
    options,
    f'text/{corpus.row},{name(embedding=kind, seed=seed)}',
    kind,
    corpus.vocab_size,
    batches(config, corpus, seed),
    {'validation': validation},
    seed=seed,
  )


def batches(config: ConfigDict, corpus: Corpus, seed: int) -> grain.IterDataset:
  """Training batches: documents end to end in rows of one length."""
  return pipeline.batches(
    corpus.documents('train'),
    corpus.tokenizer,
    batch_size=config.text.batch_size,
    length=config.text.length,
    seed=seed,
  )


def held_out(corpus: Corpus, split: str, length: int, count: int) -> np.ndarray:
  """ids [count, length]: stretches of documents of a split, each taken as a document.

  Documents come in a fixed random order, at most 8 stretches of each; where there are fewer than
  `count`, all that there are.
  """
  documents = corpus.documents(split)
  found: list[np.ndarray] = []
  for index in np.random.default_rng(0).permutation(len(documents)):
    ids = corpus.tokenizer.encode(documents[int(index)])
    whole = ids[: len(ids) // length * length].reshape(-1, length)
    found += list(whole[:: max(1, len(whole) // 8)][:8])
    if len(found) >= count:
      break
  if not found:
    raise InputError(
      f'no document of {corpus.source} ({split}) has {length} symbols: choose a shorter '
      'text.test_length, or longer documents.'
    )
  return np.stack(found[:count])
