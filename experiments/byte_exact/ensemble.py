# SPDX-License-Identifier: Apache-2.0
"""Tables `ensemble` and `cost`: models over different tokenizers together; the cost of a byte."""

import time

import numpy as np
from ml_collections import ConfigDict

from experiments.byte_exact import models
from experiments.recipe import Run, Table, text_of
from lib.decoding import byte_ensemble
from lib.decoding.byte_view import ByteTexts
from lib.language_model import byte_law, cached_law
from lib.report.results import Rows

BITS = 'bits_per_byte'


def measure(config: ConfigDict, run: Run) -> Rows:
  """Bits per byte of each model and of three ways to combine them."""
  options, rows = config.ensemble, Rows('ensemble')
  text = models.held_out(config, options.length, options.texts)
  several = [models.trained(config, run, name) for name in options.tokenizers]
  scored = []
  for ensemble in zip(*several, strict=True):
    parts = []
    for start in range(0, len(text), byte_law.TEXTS):
      some = text.texts[start : start + byte_law.TEXTS]
      readers = [
        ByteTexts(byte_law.vocabulary(one), cached_law.CachedLaw(one, len(some)), len(some))
        for one in ensemble
      ]
      parts.append(byte_ensemble.scores(readers, some))
    scored.append({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
  found = {name: np.array([one[name] for one in scored]) / np.log(2) for name in scored[0]}
  names = {str(i): name for i, name in enumerate(options.tokenizers)}
  single = {name: found[number] for number, name in names.items()}
  best = min(single, key=lambda name: single[name].sum())
  for name, bits in (single | {rule: found[rule] for rule in byte_ensemble.RULES}).items():
    where = {'model': name}
    rows.add(where, BITS, models.estimate(bits, text, options.length), 'bits/byte')
    if name != best:
      above = models.estimate(bits - single[best], text, options.length)
      rows.add(
        where, 'above_best_bits_per_byte', above, 'bits/byte', 'less the best single model, paired'
      )
    if name == 'average':
      above = models.estimate(bits - found['mixture'], text, options.length)
      rows.add(where, 'above_mixture_bits_per_byte', above, 'bits/byte', 'paired')
  return rows


def cost(config: ConfigDict, run: Run) -> Rows:
  """Model evaluations and CPU time per byte, for scores of tokens and of bytes."""
  options, rows = config.cost, Rows('cost')
  text = models.held_out(config, options.length, options.texts)
  texts = list(text.texts)
  for name in options.tokenizers:
    label, size = f'cost-{name}', sum(map(len, texts))
    [model] = models.trained(config, run, name, label=label, size=options.vocab_size, seeds=1)
    losses, found = model.token_loss(texts), byte_law.byte_loss(model, texts)
    seconds = {}  # after all is compiled, and known which tokens may follow
    for way in ('tokens', 'bytes'):
      begin = time.process_time()
      if way == 'tokens':
        model.token_loss(texts)
      else:
        byte_law.byte_loss(model, texts)
      seconds[way] = time.process_time() - begin
      where = {'tokenizer': name, 'by': way}
      rows.add(
        where, 'microseconds_per_byte', seconds[way] / size * 1e6, 'µs', 'of CPU time, in one run'
      )
    tokens = sum(loss.nats.size for loss in losses)
    where = {'tokenizer': name, 'by': 'bytes'}
    rows.add(where, 'evaluations_per_byte', found.evaluations / size, 'of the model')
    beyond = (found.evaluations - tokens) / size
    rows.add(where, 'evaluations_beyond_tokens', beyond, 'per byte')
    rows.add(where, 'times_tokens', seconds['bytes'] / seconds['tokens'], '× the time of tokens')
    rows.add(where, 'leak_nats_per_token', found.leak_per_token(text.documents.tolist()), 'nats')
    rows.add(where, 'next_byte_sum_error', found.sum_error, 'probability', 'at most')
  return rows


TABLE = Table(
  'ensemble',
  measure,
  'Models over different tokenizers, each as a distribution of the next byte, scaled to a sum of '
  '1. `mixture` is the mean of their probabilities of whole texts. `average` is the mean of their '
  'distributions of the next byte, `product` the geometric mean, scaled to 1. ± is one standard '
  'error over seeds × documents.',
  (BITS, 'above_best_bits_per_byte'),
  check=lambda config: models.check(config, config.ensemble.length, 'ensemble.length'),
  train_specs=models.train_specs,
  sources=text_of,
)
COST = Table(
  'cost',
  cost,
  'What it costs to score a text by bytes, compared with scoring its tokens: evaluations of the '
  'model, and CPU time after compilation.',
  ('evaluations_per_byte', 'times_tokens', 'leak_nats_per_token'),
  check=lambda config: models.check(config, config.cost.length, 'cost.length'),
  train_specs=models.train_specs,
  sources=text_of,
)
