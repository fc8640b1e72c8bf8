# SPDX-License-Identifier: Apache-2.0
"""Deciphers and continues the user's enciphered text with the models of the tables."""

import numpy as np
from ml_collections import ConfigDict

from experiments.lexinvariant import cipher, text_models
from experiments.recipe import Run
from lib.errors import InputError
from lib.evals.sequences import generator
from lib.tasks import ciphers

SHORTEST, LONGEST = 20, 1000  # symbols; fewer do not determine the key
CONTINUED = 40  # symbols


def check(config: ConfigDict) -> None:
  """Raises InputError for a prompt outside the first corpus's alphabet."""
  cipher.check(config)
  alphabet = text_models.ALPHABETS.get(config.text.vocabularies[0])
  if alphabet is None:
    raise InputError('a prompt needs text.vocabularies to begin with characters, such as letters.')
  data = config.prompt.encode()
  if foreign := data.translate(None, alphabet):
    raise InputError(
      f'the prompt contains {foreign[:1]!r} at byte {data.index(foreign[0])}, outside the alphabet '
      f'{alphabet!r} of this model: write it in these symbols alone.'
    )
  if not SHORTEST <= len(data) <= LONGEST:
    raise InputError(
      f'the prompt has {len(data)} symbols; give {SHORTEST} to {LONGEST}, of which long ones are '
      'the easier to decipher.'
    )


def answer(config: ConfigDict, run: Run) -> str:
  """The key that the probe finds, the plain text, and the model's continuation in the cipher."""
  corpus = text_models.corpora(config)[0]
  decode, size = corpus.tokenizer.decode, corpus.tokenizer.vocab_size
  model = text_models.train(config, run, corpus, 'lexinvariant')[0].model
  [read] = cipher.make_readers(config, run, corpus, [model])
  ids = corpus.tokenizer.encode(config.prompt.encode())
  [key] = cipher.solve(read, np.append(ids, ids[-1])[None])
  [more] = generator(model)([ids], CONTINUED)
  plain = lambda part: decode(ciphers.apply_key(part[None], key[None], size - 1)[0]).decode()
  return (
    f'\nKey found (cipher above, plain below):\n{cipher.key_lines(corpus, key)}\n\n'
    f'Deciphered: {plain(ids)}\n\nContinuation by the model: {decode(more).decode()}\n'
    f'in plain text: {plain(more)}'
  )
