# SPDX-License-Identifier: Apache-2.0
"""The tables without a network: m-gram models over characters and over tokens of Markov text."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.markov.streams import (
  DICTIONARY,
  TEST,
  TRAIN,
  draw,
  loss,
  make_source,
  on_all_cores,
  stream_seed,
)
from lib.data import markov
from lib.errors import InputError
from lib.evals import bounds, ngram, parse
from lib.report.results import Row, mean_and_sem, name
from lib.tokenizers import Blocks, Dictionary, train_bpe, train_lzw, train_sequential_bpe
from lib.tokenizers.blocks import LIMIT_BITS

COUNTS = {
  'dictionary_size': 'tokens',
  'chars_per_token': 'chars/token',
  'exact_error_in_sems': 'standard errors',
}
NOTES = {
  'worse': 'worse than a unigram over characters: each token is charged as if any other could '
  'follow it, and with few tokens and a high order that waste exceeds what a token saves',
  'sparse': 'a bigram worse than the unigram: it has d² counts to learn from the same characters',
  'vacuous': 'the bound H∞/(1−ε) exceeds the character unigram here and says nothing',
  'exact_error_in_sems': 'sampled minus exact, in standard errors of the sample; above zero at '
  'large d, since d counts learned from N tokens cost about d/2N nats a token',
}


def check(config: ConfigDict) -> None:
  """Raises InputError for sources and sizes that no table here can have."""
  for k in config.orders:
    source = make_source(config, k)
    sizes = (*config.token_ngram.sizes, *config.bound.sizes, *config.generalization.sizes)
    if min(sizes) < source.alphabet_size:
      raise InputError(
        f'a dictionary of {min(sizes)} tokens cannot hold {source.alphabet_size} characters.'
      )
  if config.source.kind == 'switching':
    for p in (*config.bound.probabilities, *config.generalization.learned_at):
      make_source(config, 1, p)
  if config.token_ngram.seeds < 1:
    raise InputError(f'token_ngram.seeds must be 1 or more; got {config.token_ngram.seeds}.')


def ngram_table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Character m-gram models against the closed form, context 0 … k + 1."""
  sizes = config.ngram

  def measure(k: int) -> list[Row]:
    source = make_source(config, k)
    train = source.sample(sizes.train_chars, stream_seed(config.seed, TRAIN, k))
    test = source.sample(sizes.test_chars, stream_seed(config.seed, TEST, k))
    note = f'counted on {sizes.train_chars:,} characters, scored on {sizes.test_chars:,} others'
    rows = []
    for m in range(k + 2):
      nats = ngram.NGram(train, m, source.alphabet_size).nats(test)
      mean, sem = ngram.per_character(nats, np.ones_like(nats))
      rows += loss('ngram', name(k=k, m=m), '', mean, sem, note)
      rows += loss('ngram', name(k=k, m=m), 'closed_form', source.ngram_loss(m))
    return rows

  return list(
    itertools.chain.from_iterable(on_all_cores('ngram', measure, [(k,) for k in config.orders]))
  )


def blocks_table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """The toy tokenizer: the best unigram over blocks of r characters."""

  def measure(k: int, r: int) -> list[Row]:
    source = make_source(config, k)
    tokenizer = Blocks(source.alphabet, r)
    length = config.blocks.chars // r * r  # no tail
    train, test = (draw(source, length, config.seed, stream) for stream in (TRAIN, TEST))
    [(mean, sem)] = ngram.token_loss(tokenizer, [train], [test], [0])
    row, note = name(k=k, r=r), f'counted and scored on {length:,} characters each'
    return [
      *loss('blocks', row, '', mean, sem, note),
      *loss('blocks', row, 'closed_form', source.block_entropy(r) / r),
      Row('blocks', row, 'dictionary_size', source.alphabet_size**r, unit='tokens'),
    ]

  letters = make_source(config, config.orders[0]).alphabet_size
  lengths = [r for r in config.blocks.lengths if r * math.log2(letters) <= LIMIT_BITS]
  jobs = [(k, r) for k in config.orders for r in lengths]
  return list(itertools.chain.from_iterable(on_all_cores('blocks', measure, jobs)))


def dictionaries(config: ConfigDict, source: markov.MarkovSource, seed: int) -> dict[str, Any]:
  """Row name -> dictionary, for BPE and LZW of every size and encoder, and for Algorithm 1."""
  sizes, k = config.token_ngram, source.order
  text = draw(source, sizes.dictionary_chars, seed, DICTIONARY)
  found: dict[str, Any] = {}
  for train in (train_bpe, train_lzw):
    learned = train(text, max(sizes.sizes), source.alphabet)
    for size in (size for size in sizes.sizes if size <= learned.vocab_size):
      smaller = learned.smaller(size)
      for encoder in learned.encoders:
        row = name(k=k, tokenizer=learned.family, encoder=encoder, d=size)
        found[row] = type(learned)(smaller.alphabet, smaller.merges, encoder)
  row = name(k=k, tokenizer='sequential_bpe', encoder='merges', texts=sizes.sequential_texts)
  return found | {row: train_sequential_bpe(text, sizes.sequential_texts)}


def token_ngram_table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Unigram and bigram models over tokens, for each dictionary, size and encoder."""
  sizes, seeds = config.token_ngram, range(config.seed, config.seed + config.token_ngram.seeds)

  def measure(k: int, seed: int) -> dict[str, dict[str, float]]:
    """Row name -> quantity -> value, for one source and its dictionaries."""
    source = make_source(config, k)
    train = draw(source, sizes.train_chars, seed, TRAIN)
    test = draw(source, sizes.test_chars, seed, TEST)
    return {
      row: _token_losses(tokenizer, source, train, test, sizes.exact_merges_up_to)
      for row, tokenizer in dictionaries(config, source, seed).items()
    }

  jobs = [(k, seed) for k in config.orders for seed in seeds]
  measured = on_all_cores('token_ngram', measure, jobs)
  rows = []
  for k in config.orders:
    of_k = [found for (order, _), found in zip(jobs, measured) if order == k]
    for row in dict.fromkeys(itertools.chain.from_iterable(of_k)):
      reached = [found[row] for found in of_k if row in found]
      rows += _token_rows(row, make_source(config, k), reached, len(of_k))
  return rows


def _token_losses(
  tokenizer: Dictionary, source: markov.MarkovSource, train: bytes, test: bytes, dense: int
) -> dict[str, float]:
  """All quantities of one dictionary and encoder, from one pair of streams."""
  (unigram, sem), (bigram, _) = ngram.token_loss(tokenizer, [train], [test], [0, 1])
  values = {'unigram': unigram, 'bigram': bigram, 'dictionary_size': tokenizer.vocab_size}
  if tokenizer.encoder == 'greedy' or (
    tokenizer.encoder == 'merges' and tokenizer.vocab_size <= dense
  ):
    exact = parse.exact_unigram(tokenizer, source)
    values |= {'exact_unigram': exact.nats_per_char, 'chars_per_token': exact.chars_per_token}
    values['exact_error_in_sems'] = (unigram - exact.nats_per_char) / sem
  else:
    values['chars_per_token'] = len(test) / len(tokenizer.encode(test))
  return values


def _token_rows(
  row: str, source: markov.MarkovSource, reached: Sequence[dict], seeds: int
) -> list[Row]:
  """Mean and standard error over seeds of what `_token_losses` gives, and the bounds beside it.

  `reached` holds the seeds whose dictionary grew to this size, of `seeds` in all.
  """
  characters, table = source.ngram_loss(0), 'token_ngram'
  partly = '' if len(reached) == seeds else f'{len(reached)} of {seeds} dictionaries grew so large'
  means = {what: mean_and_sem([values[what] for values in reached]) for what in reached[0]}
  notes = {what: NOTES.get(what, partly) for what in means}
  if means['unigram'][0] > characters:
    notes['unigram'] = NOTES['worse']
  if means['bigram'][0] > means['unigram'][0]:
    notes['bigram'] = NOTES['sparse']
  rows = []
  for what, (mean, sem) in means.items():
    if what in COUNTS:
      rows.append(Row(table, row, what, mean, sem, unit=COUNTS[what], note=notes[what]))
    else:
      rows += loss(table, row, what, mean, sem, notes[what])
  if 'tokenizer=lzw,encoder=greedy' in row:  # the theorem's tokenizer and encoder
    size = int(means['dictionary_size'][0])
    bound = bounds.dictionary_bound(source.entropy_rate, source.min_probability, size)
    rows.append(bound_row(table, row, bound, characters))
  rows += loss(table, row, 'entropy_rate', source.entropy_rate)
  return rows + loss(table, row, 'char_unigram', characters)


def bound_row(table: str, row: str, bound: float, characters: float) -> Row:
  """The theorem's bound, or nothing where a unigram over characters already meets it."""
  vacuous = bounds.vacuous(bound, characters)
  note = NOTES['vacuous'] if vacuous else ''
  value = None if vacuous else bound
  return Row(table, row, 'bound_nats_per_char', value, unit='nats/char', note=note)


def bound_table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """LZW against the theorem's bound H∞/(1 − ε), and the toy tokenizer at the same size."""
  chars = config.bound.chars
  switching = config.source.kind == 'switching'
  probabilities = config.bound.probabilities if switching else (None,)

  def measure(p: float | None) -> list[Row]:
    source = make_source(config, 1, p)
    text, train, test = (
      draw(source, chars, config.seed, stream) for stream in (DICTIONARY, TRAIN, TEST)
    )
    learned = train_lzw(text, max(config.bound.sizes), source.alphabet)
    rows = []
    for size in (size for size in config.bound.sizes if size <= learned.vocab_size):
      lzw = learned.smaller(size)
      [(mean, sem)] = ngram.token_loss(lzw, [train], [test], [0])
      bound = bounds.dictionary_bound(source.entropy_rate, source.min_probability, size)
      row = name(p=p or config.source.kind, d=size)
      rows += _bound_rows(source, row, size, mean, sem, bound, chars)
      rows += loss('bound', row, 'lzw_exact', parse.exact_unigram(lzw, source).nats_per_char)
    return rows

  return list(
    itertools.chain.from_iterable(on_all_cores('bound', measure, [(p,) for p in probabilities]))
  )


def _bound_rows(source, row, size, mean, sem, bound, chars) -> list[Row]:
  characters, table = source.ngram_loss(0), 'bound'
  speaks = not bounds.vacuous(bound, characters)
  length = max(1, int(math.log(size) / math.log(source.alphabet_size) + 1e-9))
  note = f'dictionary, counts and scores from {chars:,} characters each'
  return [
    *loss(table, row, 'lzw', mean, sem, note),
    *loss(table, row, 'toy', source.block_entropy(length) / length),
    *loss(table, row, 'entropy_rate', source.entropy_rate),
    bound_row(table, row, bound, characters),
    Row(table, row, 'holds', float(mean <= bound) if speaks else None, unit='1 = loss ≤ bound',
        note='' if speaks else NOTES['vacuous']),
  ]  # fmt: skip


def generalization_table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """What a dictionary learned on one text or source is worth on another."""
  rows = []
  for k in config.orders:
    source = make_source(config, k)
    rows += _memorised(config, source, k)
    for size in config.generalization.sizes:
      rows += _shifted(config, source, k, size)
  return rows


def _memorised(config: ConfigDict, source: markov.MarkovSource, k: int) -> list[Row]:
  """The dictionary {whole training text} ∪ alphabet: one token there, characters anywhere else."""
  seed, chars = config.seed, config.generalization.chars
  text = draw(source, min(chars, 200_000), seed, DICTIONARY)
  letters = [bytes([letter]) for letter in source.alphabet]
  tokenizer = Dictionary([*letters, text], alphabet=source.alphabet)
  train, test = draw(source, chars, seed, TRAIN), draw(source, chars, seed, TEST)
  [(mean, sem)] = ngram.token_loss(tokenizer, [train], [test], [0])
  own, fresh = (name(k=k, dictionary='memorised', text=of) for of in ('own', 'fresh'))
  table = 'generalization'
  return [
    Row(table, own, 'tokens', len(tokenizer.encode(text)), unit='tokens'),
    Row(table, fresh, 'tokens', len(tokenizer.encode(test)), unit='tokens'),
    *loss(table, fresh, '', mean, sem, f'memorised {len(text):,} characters, fresh {chars:,}'),
    *loss(table, fresh, 'char_unigram', source.ngram_loss(0)),
  ]


def _shifted(config: ConfigDict, source: markov.MarkovSource, k: int, size: int) -> list[Row]:
  """BPE learned at p = q = p′, counted and scored on this source."""
  seed, chars, table = config.seed, config.generalization.chars, 'generalization'
  train, test = draw(source, chars, seed, TRAIN), draw(source, chars, seed, TEST)
  rows = []
  elsewhere = config.generalization.learned_at if config.source.kind == 'switching' else ()
  for learned_at in (None, *elsewhere):
    other = make_source(config, k, learned_at) if learned_at else source
    bpe = train_bpe(draw(other, chars, seed, DICTIONARY), size, source.alphabet)
    [(mean, sem)] = ngram.token_loss(bpe, [train], [test], [0])
    row = name(k=k, dictionary='bpe', d=size, learned_at=learned_at or 'here')
    rows += loss(table, row, '', mean, sem, '' if learned_at else 'learned on this source')
    rows += loss(table, row, 'exact', parse.exact_unigram(bpe, source).nats_per_char)
  return rows
