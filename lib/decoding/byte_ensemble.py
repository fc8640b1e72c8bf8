# SPDX-License-Identifier: Apache-2.0
"""Several models over different tokenizers, combined into one distribution of bytes."""

from collections.abc import Sequence

import numpy as np

from lib.decoding.byte_view import ByteTexts
from lib.errors import InputError

RULES = ('mixture', 'average', 'product')


def scores(models: Sequence[ByteTexts], texts: Sequence[bytes]) -> dict[str, np.ndarray]:
  """Nats of each text under each model and each combination, float64 [texts] each.

  Laws of the next byte are scaled to a sum of 1 first. `mixture` is the mean of the models' laws of
  whole texts: a model's weight is its probability of the text so far. `average` is the mean of
  their laws of the next byte, with equal weights at each byte; `product` is the geometric mean of
  these, scaled to 1.

  Args:
    models: a reader of as many texts as there are, of each model.
    texts: of one length.

  Returns:
    name -> nats; a model's name is its number.

  Raises:
    InputError: no model, texts of several lengths, or a byte that a model has no tokens for.
  """
  if not models:
    raise InputError('an ensemble needs at least one model.')
  if len({len(text) for text in texts}) != 1:
    raise InputError('the texts of an ensemble must have one length.')
  which, rows = range(len(texts)), np.arange(len(texts))
  for model in models:
    model.begin(which)
  single = np.zeros((len(models), len(texts)))
  joined = {rule: np.zeros(len(texts)) for rule in RULES[1:]}
  for place in range(len(texts[0])):
    bytes_ = [text[place] for text in texts]
    laws = np.stack([model.next_bytes() for model in models])
    laws /= laws.sum(axis=-1, keepdims=True)
    if (silent := laws[:, rows, bytes_].min(axis=1) <= 0).any():
      number = np.flatnonzero(silent)[0]
      raise InputError(
        f'model {number} gives no probability to a byte at place {place}: all models of an '
        'ensemble must have the same alphabet.'
      )
    with np.errstate(divide='ignore'):
      logs = np.log(laws)
    single -= logs[:, rows, bytes_]
    joined['average'] -= np.log(laws.mean(axis=0)[rows, bytes_])
    means = logs.mean(axis=0)
    joined['product'] -= means[rows, bytes_] - np.log(np.exp(means).sum(axis=-1))
    for model in models:
      model.append(which, bytes_)
  mixture = np.log(len(models)) - np.logaddexp.reduce(-single, axis=0)
  return {**{str(i): one for i, one in enumerate(single)}, 'mixture': mixture, **joined}
