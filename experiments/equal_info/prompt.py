# SPDX-License-Identifier: Apache-2.0
"""Continues the user's text with an M2 of table m2."""

import itertools
from collections.abc import Iterator

from ml_collections import ConfigDict

from experiments import coders
from experiments.equal_info import m2
from experiments.equal_info.m2_text import Corpus
from experiments.recipe import Run
from lib.decoding import generated_text
from lib.errors import InputError

LOSSLESS = ('delay', 'exact', 'numbered', 'top', 'parsed', 'pruned', 'bpe', 'bpe_unsplit')


def check(config: ConfigDict) -> None:
  """Raises InputError for a tokenizer that cannot continue every prompt."""
  m2.check(config)
  [method] = m2.chosen([config.generate.method], 'generate')
  kind, bits = coders.parse(method.name)
  if kind not in (*LOSSLESS, 'bytes', 'sentencepiece') or bits > 16:
    raise InputError(
      f'generate.method {method.name!r} cannot continue a prompt: use bytes, sentencepiece, or '
      f'one of {", ".join(LOSSLESS)} with up to 16 bits.'
    )


def answer(config: ConfigDict, run: Run) -> Iterator[str]:
  """The prompt and M2's continuation, window by window."""
  options, prompt = config.generate, config.prompt.encode()
  [method] = m2.chosen([options.method], 'generate')
  [trained] = m2.train(config, run, config.m2.models[0], Corpus(config, run, method), seeds=1)
  sampled = trained.model.generate(
    prompt, max_bytes=options.bytes, seed=config.seed, temperature=options.temperature
  )
  return generated_text.as_text(itertools.chain([prompt], sampled))
