# SPDX-License-Identifier: Apache-2.0
"""Files coded under a model of tokens: they come back, and take as many bits as the model says."""

import io

import numpy as np
import pytest

from lib.compression.by_model import ByModel, ByteStepper
from lib.errors import InputError
from lib.tokenizers import container
from tests.helpers import hostile
from tests.language_model.test_byte_law import model_of


@pytest.fixture(scope='module')
def coder():
  return ByModel(model_of())


def test_any_bytes_come_back(coder):
  texts = [b'', b'a', hostile.TEXT[:90], bytes(range(0, 256, 9)), b'\xc3\xa9\xc3 \n\n  x']
  rows = coder.encode_batch(texts)
  assert coder.decode_batch(rows) == texts


def test_bits_are_those_of_the_exact_law(coder):
  texts = [hostile.TEXT[:120], hostile.TEXT[40:150]]
  expected = 0.0
  for text in texts:
    stepper = ByteStepper(model_of(), 1)
    row = stepper.start()
    for byte in text:
      expected -= np.log2(row[byte] / row.sum())
      row = stepper.step(np.array([byte], np.uint8))[0]
  # An end mark has 24 bits, and a code ends with a byte; all else is within a thousandth.
  spent = sum(8 * len(row) for row in coder.encode_batch(texts)) - 24 * len(texts)
  assert -0.001 * expected <= spent - expected <= 0.001 * expected + 8 * len(texts)


def test_another_model_is_refused(coder):
  out = io.BytesIO()
  container.write(out, coder, [b'some text'])
  out.seek(0)
  assert b''.join(container.read(out, coder, 'file')) == b'some text'
  out.seek(0)
  with pytest.raises(InputError, match='tokenizer'):
    list(container.read(out, ByModel(model_of('learned')), 'file'))
