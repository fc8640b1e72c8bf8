# SPDX-License-Identifier: Apache-2.0
"""A trained model: python docs/examples/my_model.py MODEL book.txt"""

import pathlib
import sys

from lib import language_model

model = language_model.load(sys.argv[1])
texts = pathlib.Path(sys.argv[2]).read_bytes().split(b'\n\n')  # a document each

score = model.bits_per_byte(texts)
print(f'{score.value:.2f} ± {score.sem:.2f} bits per byte (one standard error), n = {score.n}')
loss = model.token_loss(texts)[0]  # nats, bytes and ids of each token of the first document
print(f'{loss.nats.sum():.1f} nats in {loss.ids.size} tokens of {loss.bytes.sum()} bytes')
for part in model.generate(b'The cat', max_bytes=40, seed=0):
  sys.stdout.buffer.write(part)

tables = model.embedding_tables()  # input [V, D], output [V, D], bias [V] or None
shuffled = tables._replace(input=tables.input[::-1])
model.with_tables(shuffled, model.tokenizer).save(f'{sys.argv[1]}-shuffled')
