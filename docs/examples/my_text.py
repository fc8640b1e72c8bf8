# SPDX-License-Identifier: Apache-2.0
"""My text: python docs/examples/my_text.py book.txt"""

import math
import sys

from lib import tokenizers
from lib.data import pipeline, sources
from lib.evals import ngram

train = sources.open_source(sys.argv[1], 'train')  # a file, a folder, a glob, tfds:NAME
text = sources.sample(train, 10_000_000)
bpe = tokenizers.train('bpe', text, 1024)

test = sources.sample(sources.open_source(sys.argv[1], 'test'), 1_000_000)
[nats] = ngram.token_loss(bpe, text, test, [0])
bits = nats.times(1 / math.log(2))
print(f'unigram over {bpe.vocab_size} tokens: {bits.value:.3f} bits/byte')
print(f'standard error {bits.sem} over {bits.n} {bits.over}')

batch = next(iter(pipeline.batches(train, bpe, batch_size=4, length=64, seed=0)))
for name, values in batch.items():
  print(name, values.shape, values[0, :8])
