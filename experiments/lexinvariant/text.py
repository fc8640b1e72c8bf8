# SPDX-License-Identifier: Apache-2.0
"""Models of text that several tables share: trained once a corpus, vocabulary, embedding, seed."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import grain
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from experiments import runner
from experiments.lexinvariant import models
from lib.data import (
  ciphers,
  description,
  epochs,
  excerpts,
  files,
  ngram_text,
  overlap,
  pipeline,
  sources,
)
from lib.data.ngram_text import NgramText
from lib.errors import InputError
from lib.report.results import name
from lib.tokenizers import Characters, train_sentencepiece
from lib.tokenizers.base import Tokenizer

LETTERS = bytes(range(ord('a'), ord('z') + 1))
# Symbols of each vocabulary; documents are folded into them. The paper's characters are ASCII.
ALPHABETS = {'letters': LETTERS + b' \n', 'char': bytes(range(128)), 'bytes': bytes(range(256))}
SENTENCEPIECE = {'32k': 32_000}
PIECE_BYTES = 4  # of a piece of 32,000, about: enough to count epochs
DOCUMENTS = 60  # that held-out stretches come from, at least, where a split has them


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
    if self.alphabet is None:
      return sources.open_source(self.source, split)
    return folded(self.source, self.vocabulary).documents[split]

  @property
  def alphabet(self) -> bytes | None:
    """The symbols where each is a byte."""
    return ALPHABETS.get(self.vocabulary)


class Folded(NamedTuple):
  """A source whose bytes are folded into an alphabet.

  Attributes:
    documents: split -> its documents.
    overlaps: split -> overlap of validation and test with train; empty where nothing was cut.
  """

  documents: Mapping[str, sources.Source]
  overlaps: Mapping[str, overlap.Overlap]


@functools.cache
def folded(source: str, vocabulary: str) -> Folded:
  """A source in the alphabet of a vocabulary, its validation and test text cut again.

  Folding makes equal what differs in case, digits or punctuation alone, so text that was cut
  before (`lib.data.overlap`) overlaps again. TFDS sets keep their own splits, and endless text is
  sampled from the law of the folded text.
  """
  alphabet = ALPHABETS[vocabulary]
  found = {split: sources.open_source(source, split) for split in files.SPLITS}
  if source.startswith(ngram_text.PREFIX):
    return Folded({s: cast(NgramText, one).folded(alphabet) for s, one in found.items()}, {})
  documents: dict[str, sources.Source]
  documents = {split: ciphers.Folded(one, alphabet) for split, one in found.items()}
  if source.startswith('tfds:'):
    return Folded(documents, {})
  cuts = overlap.clean(**documents)
  for split, cut in cuts.items():
    documents[split] = [one for one in cut.join(documents[split]) if one]
  return Folded(documents, {split: cut.overlap for split, cut in cuts.items()})


def describe(source: str, vocabulary: str) -> list[description.Description]:
  """What the folded text of a source contains, if folding made its held-out text be cut."""
  found = folded(source, vocabulary) if vocabulary in ALPHABETS else None
  if not found or not found.overlaps:
    return []
  texts = {split: sources.sample(one) for split, one in found.documents.items()}
  known = description.Description(
    f'{source} folded into {vocabulary}',
    {split: len(one) for split, one in texts.items()},
    {split: sum(map(len, one)) for split, one in texts.items()},
    found.overlaps,
    description.digest(texts),
  )
  blocks = [[document] for split in texts.values() for document in split]
  return [description.kept(known, lambda: blocks, lambda: texts['train'])]


class HeldOut(NamedTuple):
  """Stretches of held-out text, each taken as a document.

  Attributes:
    ids: [N, T].
    documents: [N] the document of each stretch: the independent unit of every error.
  """

  ids: np.ndarray
  documents: np.ndarray


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
  if options.window > options.length:
    raise InputError(
      f'text.window {options.window} is longer than text.length {options.length}; windows move '
      'within a sequence.'
    )
  for _, source in options.corpora:
    for split in ('train', 'validation', 'test'):
      sources.open_source(source, split)
    for vocabulary in options.vocabularies:
      epochs_note(config, source, vocabulary)


def epochs_note(config: ConfigDict, source: str, vocabulary: str) -> str:
  """How often training reads its text; InputError for too often (`lib.data.epochs`)."""
  symbols = config.text.steps * config.text.batch_size * config.text.length
  size = symbols * (PIECE_BYTES if vocabulary in SENTENCEPIECE else 1)
  return epochs.check('text.corpora', source, size, config.scale)


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
  text = sources.sample(sources.open_source(source, 'train'), 2**25)
  return train_sentencepiece(text, SENTENCEPIECE[vocabulary], 'unigram')


def seeds(config: ConfigDict) -> range:
  """Seeds of the models."""
  return range(config.seed, config.seed + config.text.seeds)


@functools.lru_cache(maxsize=16)
def _chosen(run: runner.Run, config: FrozenConfigDict, kind: str) -> ConfigDict:
  """The section at the rate of a kind of rows, chosen on the first of the corpora."""
  corpus, seed = corpora(config)[0], config.seed

  def loss(short: ConfigDict, rate: float) -> float:
    run_name = f'text/{corpus.row},{name(embedding=kind, rate=rate)}'
    trained = _fit(config, run, short, run_name, corpus, kind, seed)
    return models.last(trained.history, 'validation/nats')

  return models.choose_rate(ConfigDict(config.text), loss)


def chosen(config: ConfigDict, run: runner.Run, kind: str) -> ConfigDict:
  """The section at the learning rate of a kind of rows, which validation text chose."""
  return _chosen(run, FrozenConfigDict(config), kind)


def fit(
  config: ConfigDict, run: runner.Run, corpus: Corpus, kind: str, seed: int
) -> models.Trained:
  """A model of a corpus, trained now or by another table of this run."""
  run_name = f'text/{corpus.row},{name(embedding=kind, seed=seed)}'
  return _fit(config, run, chosen(config, run, kind), run_name, corpus, kind, seed)


def _fit(
  config: ConfigDict,
  run: runner.Run,
  options: ConfigDict,
  run_name: str,
  corpus: Corpus,
  kind: str,
  seed: int,
) -> models.Trained:
  held = held_out(corpus, 'validation', options.length, 64).ids

  def validation(model):
    score = models.scorer(model, corpus.vocab_size)

    def evaluate(variables):
      nats = score(variables, held)
      late = nats[:, -(nats.shape[1] // 4) :]
      return {'nats': nats.mean(), 'late_perplexity': np.exp(late.mean())}

    return evaluate

  return models.fit(
    config,
    run,
    options,
    run_name,
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


def held_out(corpus: Corpus, split: str, length: int, count: int) -> HeldOut:
  """Stretches of `length` symbols of the documents of a split, `count` at most.

  They come from about DOCUMENTS documents or more, if the split has as many. Of endless text each
  is the beginning of a document: there its law is exact.
  """
  found = excerpts.take(
    corpus.documents(split),
    length=length,
    count=count,
    most=1 if law(corpus) else of_one_document(count),
    prepare=corpus.tokenizer.encode,
    name=f'{corpus.source} ({split}), in symbols of {corpus.vocabulary}',
  )
  return HeldOut(np.stack(found.texts), found.documents)


def of_one_document(count: int) -> int:
  """How many of `count` stretches may come from one document."""
  return max(1, round(count / DOCUMENTS))


def law(corpus: Corpus) -> NgramText | None:
  """The text whose exact law the corpus has, if it is endless and its symbols are bytes."""
  found = corpus.documents('test')
  return found if isinstance(found, NgramText) and corpus.alphabet else None


def law_nats(corpus: Corpus, held: HeldOut) -> np.ndarray | None:
  """Nats [N, T] of held-out text under the law that made it, the least that any model needs."""
  exact = law(corpus)
  if exact is None:
    return None
  return np.stack([exact.nats(corpus.tokenizer.decode(ids)) for ids in held.ids])
