# SPDX-License-Identifier: Apache-2.0
"""What coded text is like: M1's ideal code length, and how far bits are from random ones."""

from collections.abc import Sequence

import numpy as np

from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.baselines import END
from lib.tokenizers.coding.model import Stepper


def ideal_bits(stepper: Stepper, documents: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
  """The code length of each document, float64 [n], that M1's probabilities allow.

  Returns:
    -log2 of the probabilities of its bytes, and the same of the coder's integer frequencies, to
    which the mark of the end is added.
  """
  exact, coded = np.zeros(len(documents)), np.zeros(len(documents))
  for begin in range(0, len(documents), stepper.streams):
    part = documents[begin : begin + stepper.streams]
    texts = np.zeros((max(map(len, part)), stepper.streams), np.uint8)
    for lane, document in enumerate(part):
      texts[: len(document), lane] = np.frombuffer(document, np.uint8)
    given = np.repeat(stepper.start()[None], stepper.streams, axis=0)
    stepper.reset(np.ones(stepper.streams, bool))
    for place in range(len(texts) + 1):
      frequencies = np.diff(arithmetic.quantise(given, marks=1).astype(np.int64))
      for lane, document in enumerate(part):
        if place < len(document):
          exact[begin + lane] -= np.log2(given[lane, document[place]])
        if place <= len(document):
          symbol = document[place] if place < len(document) else END
          coded[begin + lane] += arithmetic.PRECISION - np.log2(frequencies[lane, symbol])
      if place < len(texts):
        given = stepper.step(texts[place])
  return exact, coded
