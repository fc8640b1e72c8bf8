# SPDX-License-Identifier: Apache-2.0
"""Models of text that several tables share: trained once per corpus, vocabulary, embedding and
seed.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from experiments import fit
from experiments.lexinvariant import decoders
from experiments.recipe import Run, TrainSpecs
from lib import tokenizers
from lib.data import epochs, excerpts, folded, own_files, pipeline, sources, token_cache
from lib.data.description import Description
from lib.data.ngram_text import NgramText
from lib.data.sources import Source
from lib.data.token_cache import TokenCache
from lib.errors import InputError
from lib.evals.sequences import token_nats
from lib.language_model import TrainedModel
from lib.report.results import name
from lib.tokenizers import Tokenizer
from lib.tokenizers.characters import Characters

LETTERS = bytes(range(ord('a'), ord('z') + 1))
# Symbols of each vocabulary; documents are folded into them. The paper's characters are ASCII.
ALPHABETS = {'letters': LETTERS + b' \n', 'char': bytes(range(128)), 'bytes': bytes(range(256))}
SENTENCEPIECE = {'32k': 32_000}
PIECE_BYTES = 4  # approximate bytes of a piece of 32,000, to count epochs
DOCUMENTS = 60  # least number of documents of held-out stretches, if a split has as many


class Corpus(NamedTuple):
  """Text and the symbols that it is made of.

  Attributes:
    data: name of the corpus.
    vocabulary: name of its symbols.
    source: what `open_source` takes.
    tokenizer: text to ids.
    token_cache: folder that keeps tokens of training documents, or ''.
  """

  data: str
  vocabulary: str
  source: str
  tokenizer: Tokenizer
  token_cache: str = ''

  @property
  def where(self) -> dict[str, str]:
    """Coordinates of the corpus in the tables."""
    return {'data': self.data, 'vocabulary': self.vocabulary}

  @property
  def alphabet(self) -> bytes | None:
    """The symbols where each is a byte."""
    return ALPHABETS.get(self.vocabulary)

  def documents(self, split: str) -> sources.Source:
    """Documents of a split, in the symbols of the vocabulary."""
    if self.alphabet is None:
      return sources.open_source(self.source, split)
    return folded.open_folded(self.source, self.alphabet).documents[split]

  @property
  def law(self) -> NgramText | None:
    """The text whose exact law the corpus has, if it is endless and its symbols are bytes."""
    found = self.documents('test')
    return found if isinstance(found, NgramText) and self.alphabet else None


def check(config: ConfigDict) -> None:
  """Raises InputError for missing text or models that cannot be built."""
  options, sizes = config.text, vocab_sizes()
  for vocabulary in options.vocabularies:
    if vocabulary not in sizes:
      raise InputError(f'text.vocabularies {vocabulary!r} is not one of {", ".join(sizes)}.')
    decoders.check(options, 'text', sizes[vocabulary])
  if options.window > options.length:
    raise InputError(
      f'text.window {options.window} is longer than text.length {options.length}; windows move '
      'within a sequence.'
    )
  for _, source in named_sources(config):
    for split in own_files.SPLITS:
      sources.open_source(source, split)
    for vocabulary in options.vocabularies:
      epochs_note(config, source, vocabulary)


def epochs_note(config: ConfigDict, source: str, vocabulary: str) -> str:
  """How often training reads its text; InputError for too often (`lib.data.epochs`)."""
  symbols = config.text.steps * config.text.batch_size * config.text.length
  size = symbols * (PIECE_BYTES if vocabulary in SENTENCEPIECE else 1)
  return epochs.check('text.corpora', source, size, config.scale)


def read(config: ConfigDict) -> Sequence[str]:
  """The sources of text."""
  return [source for _, source in named_sources(config)]


def describe(config: ConfigDict) -> Sequence[Description]:
  """What the folded text of each source contains."""
  return [
    one
    for source in read(config)
    for key in config.text.vocabularies
    if key in ALPHABETS
    for one in folded.describe(source, ALPHABETS[key], key)
  ]


def vocab_sizes() -> dict[str, int]:
  """V of each vocabulary, the largest first."""
  return SENTENCEPIECE | {key: len(ALPHABETS[key]) for key in ('bytes', 'char', 'letters')}


def train_specs(config: ConfigDict) -> TrainSpecs:
  """The models of text: of the largest vocabulary first, trained rows before random ones."""
  return {
    f'text/{name(vocabulary=key, embedding=kind)}': functools.partial(
      decoders.train_spec, config, config.text, kind, size
    )
    for key, size in vocab_sizes().items()
    if key in config.text.vocabularies
    for kind in decoders.EMBEDDINGS
  }


def named_sources(config: ConfigDict) -> Sequence[tuple[str, str]]:
  """Name and source of each corpus; the user's `data.source` takes the place of all."""
  return [('own', config.data.source)] if config.data.source else config.text.corpora


def corpora(config: ConfigDict) -> list[Corpus]:
  """Every corpus in every vocabulary."""
  return [
    Corpus(data, vocabulary, source, _tokenizer(source, vocabulary), config.token_cache)
    for data, source in named_sources(config)
    for vocabulary in config.text.vocabularies
  ]


@functools.cache
def _tokenizer(source: str, vocabulary: str) -> Tokenizer:
  if alphabet := ALPHABETS.get(vocabulary):
    return Characters(alphabet)
  text = sources.sample(sources.open_source(source, 'train'), 2**25)
  return tokenizers.train('sentencepiece', text, SENTENCEPIECE[vocabulary])


def train(config: ConfigDict, run: Run, corpus: Corpus, kind: str) -> list[fit.Fitted]:
  """The seeds of a model of a corpus, trained now or by another table of this run."""
  options = _at_best_rate(run, FrozenConfigDict(config), kind)
  return _train(config, run, options, name(**corpus.where, embedding=kind), corpus, kind)


@functools.lru_cache(maxsize=16)
def _at_best_rate(run: Run, config: FrozenConfigDict, kind: str) -> ConfigDict:
  """The section at the learning rate of a kind of rows, chosen on the first of the corpora."""
  corpus = corpora(config)[0]

  def loss(short: ConfigDict) -> float:
    run_name = name(**corpus.where, embedding=kind, rate=short.rates[0])
    return _train(config, run, short, run_name, corpus, kind)[0].last('validation/nats')

  return fit.choose_rate(ConfigDict(config.text), loss)


def _train(
  config: ConfigDict, run: Run, options: ConfigDict, run_name: str, corpus: Corpus, kind: str
) -> list[fit.Fitted]:
  held = held_out(corpus, 'validation', options.length, 64).ids

  def score(model: TrainedModel) -> dict[str, float]:
    nats = token_nats(model, held)
    late = nats[:, -(nats.shape[1] // 4) :]
    return {'nats': nats.mean(), 'late_perplexity': np.exp(late.mean())}

  of_seed = lambda seed: batches(options, corpus, seed)
  tokenizer = corpus.tokenizer
  return decoders.train(
    config,
    run,
    options,
    f'text/{run_name}',
    kind,
    tokenizer,
    of_seed,
    score,
    'nats',
    text=corpus.source,
  )


def batches(options: ConfigDict, corpus: Corpus, seed: int) -> grain.IterDataset:
  """Training batches: documents end to end in rows of one length."""
  documents: Source | TokenCache = corpus.documents('train')
  if corpus.alphabet is None:  # else a byte is a token
    documents = token_cache.open_tokens(corpus.token_cache, corpus.source, corpus.tokenizer)
  return pipeline.batches(
    documents,
    corpus.tokenizer,
    batch_size=options.batch_size,
    length=options.length,
    seed=seed,
    lanes=options.lanes,
  )


def held_out(corpus: Corpus, split: str, length: int, count: int) -> excerpts.Excerpts:
  """Stretches of `length` symbols of the documents of a split, `count` at most.

  They come from about DOCUMENTS documents or more, if the split has as many. Of endless text each
  is the beginning of a document, where its law is exact.
  """
  return excerpts.take(
    corpus.documents(split),
    length=length,
    count=count,
    most=1 if corpus.law else of_one_document(count),
    prepare=corpus.tokenizer.encode,
    name=f'{corpus.source} ({split}), in symbols of {corpus.vocabulary}',
  )


def of_one_document(count: int) -> int:
  """The most of `count` stretches that may come from one document."""
  return max(1, round(count / DOCUMENTS))


def law_nats(corpus: Corpus, ids: np.ndarray) -> np.ndarray | None:
  """Nats [N, T] of held-out text under its own law, the minimum for any model."""
  if (law := corpus.law) is None:
    return None
  return np.stack([law.nats(corpus.tokenizer.decode(one)) for one in ids])
