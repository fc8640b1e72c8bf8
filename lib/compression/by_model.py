# SPDX-License-Identifier: Apache-2.0
"""Any trained model of tokens as the model of an arithmetic coder, by its exact law of bytes."""

import numpy as np

from lib.decoding.byte_view import END, ByteTexts
from lib.language_model import TrainedModel, byte_law, cached_law
from lib.tokenizers import base
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.streams import SteppedAC

STREAMS = 4  # stretches of a file that are coded in parallel, each a text of its own


class ByteStepper:
  """The law of the next byte of several texts, in the form that coders take.

  Attributes:
    streams: number of texts.
  """

  def __init__(self, model: TrainedModel, streams: int = STREAMS):
    self.streams = streams
    law = cached_law.CachedLaw(model, streams)
    self._texts = ByteTexts(byte_law.vocabulary(model), law, streams)
    self._texts.begin(range(streams))

  def start(self) -> np.ndarray:
    """Probabilities of the first byte, float64 [256]."""
    self._texts.begin([0])
    return self._texts.next_bytes()[0, :END]

  def reset(self, which: np.ndarray) -> None:
    """Empties the texts where `which` [N] is true."""
    self._texts.begin(np.flatnonzero(which).tolist())

  def step(self, symbols: np.ndarray) -> np.ndarray:
    """Appends one byte to each text, uint8 [N]; next-byte probabilities, float64 [N, 256]."""
    self._texts.append(range(self.streams), symbols.tolist())
    return self._texts.next_bytes()[:, :END]


class ByModel(SteppedAC):
  """Bytes coded one by one under a trained model; frequencies have 24 bits.

  Args:
    model: with a BOS token and a tokenizer that `covers.follow` takes.
  """

  precision = arithmetic.FINE

  def __init__(self, model: TrainedModel):
    super().__init__(ByteStepper(model), f'bytes of {model.fingerprint}')

  def file_state(self) -> base.State:
    """As `state`: a model is a folder of its own."""
    return self.state()
