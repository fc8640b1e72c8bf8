# SPDX-License-Identifier: Apache-2.0
"""A text that the user gives, gone on with by an M2 of table m2."""

import itertools
from collections.abc import Iterator

import jax
from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import codecs, m2
from experiments.equal_info.corpus import Corpus
from lib.decoding import text
from lib.decoding.sampling import Sampling
from lib.errors import InputError

LOSSLESS = ('delay', 'exact', 'numbered', 'top', 'parsed', 'pruned', 'bpe')


def check(config: ConfigDict) -> None:
  """Raises InputError for a tokenizer that cannot speak or go on from every prompt."""
  m2.check(config)
  method = _method(config)
  kind, bits = codecs.parse(method.name)
  if kind not in (*LOSSLESS, 'bytes', 'sentencepiece') or bits > 16:
    raise InputError(
      f'generate.method {method.name!r} cannot go on from a prompt: use bytes, sentencepiece, or '
      f'one of {", ".join(LOSSLESS)} with up to 16 bits.'
    )
  if config.generate.bytes < 1 or config.generate.temperature < 0:
    raise InputError('generate.bytes must be 1 or more and generate.temperature 0 or more.')


def _method(config: ConfigDict) -> codecs.Method:
  return m2.chosen([config.generate.method], 'generate')[0]


def answer(config: ConfigDict, run: runner.Run) -> Iterator[str]:
  """The prompt and what M2 samples after it, window by window."""
  options, size = config.generate, config.m2.models[0]
  corpus = Corpus(config, run, _method(config))
  trained = m2.fit(config, run, size, corpus, config.seed)
  prompt = config.prompt.encode()
  sampled = text.generate(
    trained.model,
    trained.variables,
    corpus.tokenizer,
    [prompt],
    bos=corpus.vocab_size,
    context=config.m2.length,
    keys=jax.random.key(config.seed)[None],
    how=Sampling(options.temperature),
    max_bytes=options.bytes,
  )
  return text.as_text(itertools.chain([prompt], (part for [part] in sampled)))
