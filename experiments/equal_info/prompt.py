# SPDX-License-Identifier: Apache-2.0
"""A text that the user gives, gone on with by an M2 of table m2."""

import itertools
from collections.abc import Iterable, Iterator

from ml_collections import ConfigDict

from experiments import coders, runner
from experiments.equal_info import m2
from experiments.equal_info.corpus import Corpus
from lib.errors import InputError
from lib.evals import generation
from lib.models.reader import Reader

LOSSLESS = ('delay', 'exact', 'numbered', 'top', 'parsed', 'pruned', 'bpe')


def check(config: ConfigDict) -> None:
  """Raises InputError for a tokenizer that cannot speak or go on from every prompt."""
  m2.check(config)
  method = _method(config)
  kind, bits = coders.parse(method.name)
  if kind not in (*LOSSLESS, 'bytes', 'sentencepiece') or bits > 16:
    raise InputError(
      f'generate.method {method.name!r} cannot go on from a prompt: use bytes, sentencepiece, or '
      f'one of {", ".join(LOSSLESS)} with up to 16 bits.'
    )
  if config.generate.bytes < 1 or config.generate.temperature < 0:
    raise InputError('generate.bytes must be 1 or more and generate.temperature 0 or more.')


def _method(config: ConfigDict) -> coders.Method:
  return m2.chosen([config.generate.method], 'generate')[0]


def answer(config: ConfigDict, run: runner.Run) -> Iterator[str]:
  """The prompt and what M2 samples after it, window by window."""
  options, size = config.generate, config.m2.models[0]
  corpus = Corpus(config, run, _method(config))
  trained = m2.fit(config, run, size, corpus, config.seed)
  window = generation.pieces(corpus.tokenizer).tokens.shape[1]
  read = Reader(
    trained.model, trained.variables, corpus.vocab_size, config.m2.length, window
  )  # fmt: skip
  prompt = config.prompt.encode()
  sampled = generation.generate(
    read, corpus.tokenizer, prompt, config.seed, options.temperature
  )  # fmt: skip
  return generation.as_text(itertools.chain([prompt], _up_to(sampled, options.bytes)))


def _up_to(parts: Iterable[bytes], size: int) -> Iterator[bytes]:
  """Parts until they hold `size` bytes or more."""
  for part in parts:
    yield part
    size -= len(part)
    if size <= 0:
      return
