# SPDX-License-Identifier: Apache-2.0
"""My embedding, input rows of fixed random signs: python docs/examples/my_embedding.py DIR"""

import sys

from jax import random

from lib.data import pipeline, sources
from lib.embeddings.learned import Learned
from lib.models.decoder import Decoder, LanguageModel
from lib.objectives.next_token import next_token
from lib.parallel import sharding
from lib.tokenizers.characters import Characters
from lib.train import loop, optimizer
from lib.train.experiment import Experiment


class Signs(Learned):  # the other methods are those of trained rows
  def encode(self, ids, rows):
    return random.rademacher(random.key(0), (self.vocab_size + 1, self.dim), self.dtype)[ids]


model = LanguageModel(Signs(256, 32), Decoder(layers=1, dim=32, heads=2, mlp_dim=128))
text = sources.open_source('stdlib/prose', 'train')
batches = pipeline.batches(text, Characters(), batch_size=8, length=64, seed=0)
_, history = loop.train(
  Experiment(*next_token(model), batches), optimizer.make_optimizer('adamw', lambda step: 1e-2),
  steps=50, seed=0, mesh=sharding.make_mesh({'data': -1}), workdir=sys.argv[1],
)  # fmt: skip
print(f'{history[-1]["bits_per_byte"]:.2f} bits per byte after {history[-1]["step"]} steps')
