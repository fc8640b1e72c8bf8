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
  draw_parts,
  loss,
  make_source,
  on_all_cores,
  stream_seed,
)
from lib import stats
from lib.data import markov
from lib.errors import InputError
from lib.evals import bounds, ngram, parse
from lib.report.results import Row, name
from lib.tokenizers import Blocks, Dictionary, train_bpe, train_lzw, train_sequential_bpe
from lib.tokenizers.blocks import LIMIT_BITS

UNIGRAM = 'unigram'
COUNTS = {'dictionary_size': 'tokens', 'chars_per_token': 'chars/token'}
NOTES = {
  'worse': 'worse than a unigram over characters: each token is charged as if any other could '
  'follow it, and with few tokens and a high order that waste exceeds what a token saves',
  'sparse': 'a bigram worse than the unigram: it has d² counts to learn from the same characters',
  'vacuous': 'the bound H∞/(1−ε) exceeds the character unigram here and says nothing',
  'unigram_above_exact': 'sampled less exact, paired by seed; above zero at large d, since d '
  'counts learned from N tokens cost about d/2N nats a token',
  'unigram_above_smaller': 'less the next smaller dictionary of the same encoder, paired by seed',
  'unigram_above_merges': 'less the same dictionary encoded by its merges, paired by seed',
  'unigram_above_characters': 'less the closed form of a unigram over characters',
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
  for table in ('token_ngram', 'bound'):
    if config[table].seeds < 1:
      raise InputError(f'{table}.seeds must be 1 or more; got {config[table].seeds}.')


def ngram_table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Character m-gram models against the closed form, context 0 … k + 1."""
  sizes = config.ngram

  def measure(k: int) -> list[Row]:
    source = make_source(config, k)
    train = source.sample(sizes.train_chars, stream_seed(config.seed, TRAIN, k))
    parts = draw_parts(source, sizes.test_chars, config.seed, TEST)
    test = [np.frombuffer(part, np.uint8) - source.alphabet[0] for part in parts]
    note = f'counted on {sizes.train_chars:,} characters, scored on {sizes.test_chars:,} others'
    rows = []
    for m in range(k + 2):
      nats = ngram.NGram(train, m, source.alphabet_size).by_document(test)
      found = stats.ratio(nats, [*map(len, test)], over='texts')
      rows += loss('ngram', name(k=k, m=m), '', found, note)
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
    train, test = (  # texts of whole blocks
      draw_parts(source, config.blocks.chars, config.seed, stream, multiple=r)
      for stream in (TRAIN, TEST)
    )
    [found] = ngram.token_loss(tokenizer, train, test, [0], over='texts')
    row, note = name(k=k, r=r), f'counted and scored on {sum(map(len, test)):,} characters each'
    return [
      *loss('blocks', row, '', found, note),
      *loss('blocks', row, 'closed_form', source.block_entropy(r) / r),
      Row('blocks', row, 'dictionary_size', source.alphabet_size**r, unit='tokens'),
    ]

  letters = make_source(config, config.orders[0]).alphabet_size
  lengths = [r for r in config.blocks.lengths if r * math.log2(letters) <= LIMIT_BITS]
  jobs = [(k, r) for k in config.orders for r in lengths]
  return list(itertools.chain.from_iterable(on_all_cores('blocks', measure, jobs)))


def dictionaries(
  config: ConfigDict, source: markov.MarkovSource, seed: int
) -> dict[str, tuple[Dictionary, dict[str, str]]]:
  """Row name -> dictionary, for BPE and LZW of every size and encoder, and for Algorithm 1.

  With each come the rows that it is compared with: the next `smaller` dictionary of the same
  encoder, and the same dictionary encoded by its `merges`.
  """
  sizes, k = config.token_ngram, source.order
  text = draw(source, sizes.dictionary_chars, seed, DICTIONARY)
  found: dict[str, tuple[Dictionary, dict[str, str]]] = {}
  for train in (train_bpe, train_lzw):
    learned: Any = train(text, max(sizes.sizes), source.alphabet)
    reached = [size for size in sorted(sizes.sizes) if size <= learned.vocab_size]
    row_of = lambda encoder, size, family=learned.family: name(
      k=k, tokenizer=family, encoder=encoder, d=size
    )
    for before, size in zip([None, *reached], reached):
      smaller = learned.smaller(size)
      for encoder in learned.encoders:
        others = {'smaller': row_of(encoder, before)} if before else {}
        if encoder != 'merges' and 'merges' in learned.encoders:
          others['merges'] = row_of('merges', size)
        tokenizer = type(learned)(smaller.alphabet, smaller.merges, encoder)
        found[row_of(encoder, size)] = tokenizer, others
  row = name(k=k, tokenizer='sequential_bpe', encoder='merges', texts=sizes.sequential_texts)
  return found | {row: (train_sequential_bpe(text, sizes.sequential_texts), {})}


def token_ngram_table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Unigram and bigram models over tokens, for each dictionary, size and encoder."""
  sizes, seeds = config.token_ngram, range(config.seed, config.seed + config.token_ngram.seeds)

  def measure(k: int, seed: int) -> dict[str, dict[str, float]]:
    """Row name -> quantity -> value, for one source and its dictionaries."""
    source = make_source(config, k)
    train = draw(source, sizes.train_chars, seed, TRAIN)
    test = draw(source, sizes.test_chars, seed, TEST)
    learned = dictionaries(config, source, seed)
    values = {
      row: _token_losses(tokenizer, source, train, test, sizes.exact_merges_up_to)
      for row, (tokenizer, _) in learned.items()
    }
    for row, (_, others) in learned.items():
      for kind, other in others.items():
        difference = values[row][UNIGRAM] - values[other][UNIGRAM]
        values[row][f'unigram_above_{kind}'] = difference
    return values

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
  unigram, bigram = (found.value for found in ngram.token_loss(tokenizer, [train], [test], [0, 1]))
  values = {UNIGRAM: unigram, 'bigram': bigram, 'dictionary_size': tokenizer.vocab_size}
  values['unigram_above_characters'] = unigram - source.ngram_loss(0)
  if tokenizer.encoder == 'greedy' or (
    tokenizer.encoder == 'merges' and tokenizer.vocab_size <= dense
  ):
    exact = parse.exact_unigram(tokenizer, source)
    values |= {'exact_unigram': exact.nats_per_char, 'chars_per_token': exact.chars_per_token}
    values['unigram_above_exact'] = unigram - exact.nats_per_char
  else:
    values['chars_per_token'] = len(test) / len(tokenizer.encode(test))
  return values


def _token_rows(
  row: str, source: markov.MarkovSource, reached: Sequence[dict], seeds: int
) -> list[Row]:
  """Mean and standard error over seeds of the results of `_token_losses`, with the bounds.

  `reached` are the seeds whose dictionary grew to this size, of `seeds` in all.
  """
  characters, table = source.ngram_loss(0), 'token_ngram'
  partly = '' if len(reached) == seeds else f'{len(reached)} of {seeds} dictionaries grew so large'
  means = {what: stats.mean([values[what] for values in reached]) for what in reached[0]}
  notes = {what: NOTES.get(what, partly) for what in means}
  if means[UNIGRAM].value > characters:
    notes[UNIGRAM] = NOTES['worse']
  if means['bigram'].value > means[UNIGRAM].value:
    notes['bigram'] = NOTES['sparse']
  rows = []
  for what, found in means.items():
    if what in COUNTS:
      rows.append(Row.of(table, row, what, found, unit=COUNTS[what], note=notes[what]))
    else:
      rows += loss(table, row, what, found, notes[what])
  if 'tokenizer=lzw,encoder=greedy' in row:  # the theorem's tokenizer and encoder
    size = int(means['dictionary_size'].value)
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
  """LZW against the theorem's bound H∞/(1 − ε), and the toy tokenizer at the same size.

  The loss of a dictionary is computed exactly. What varies is the text that it is learned from.
  """
  sizes = config.bound
  probabilities = sizes.probabilities if config.source.kind == 'switching' else (None,)

  def measure(p: float | None, seed: int) -> dict[int, float]:
    """Dictionary size -> nats per character, for one dictionary."""
    source = make_source(config, 1, p)
    text = draw(source, sizes.chars, seed, DICTIONARY)
    learned = train_lzw(text, max(sizes.sizes), source.alphabet)
    return {
      size: parse.exact_unigram(learned.smaller(size), source).nats_per_char
      for size in sizes.sizes
      if size <= learned.vocab_size
    }

  seeds = range(config.seed, config.seed + sizes.seeds)
  jobs = [(p, seed) for p in probabilities for seed in seeds]
  measured = on_all_cores('bound', measure, jobs)
  rows = []
  for p in probabilities:
    of_p = [found for (other, _), found in zip(jobs, measured) if other == p]
    for size in sizes.sizes:
      if values := [found[size] for found in of_p if size in found]:
        row = name(p=p or config.source.kind, d=size)
        rows += _bound_rows(make_source(config, 1, p), row, size, stats.mean(values), sizes.chars)
  return rows


def _bound_rows(
  source: markov.MarkovSource, row: str, size: int, lzw: stats.Estimate, chars: int
) -> list[Row]:
  characters, table = source.ngram_loss(0), 'bound'
  bound = bounds.dictionary_bound(source.entropy_rate, source.min_probability, size)
  vacuous = bounds.vacuous(bound, characters)
  length = max(1, int(math.log(size) / math.log(source.alphabet_size) + 1e-9))
  note = f'computed exactly; a dictionary a seed, each learned from up to {chars:,} characters'
  return [
    *loss(table, row, 'lzw', lzw, note),
    *loss(table, row, 'toy', source.block_entropy(length) / length),
    *loss(table, row, 'entropy_rate', source.entropy_rate),
    bound_row(table, row, bound, characters),
    Row(table, row, 'holds', None if vacuous else float(lzw.value <= bound),
        unit='1 = loss ≤ bound', note=NOTES['vacuous'] if vacuous else ''),
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
  train, test = (draw_parts(source, chars, seed, stream) for stream in (TRAIN, TEST))
  [found] = ngram.token_loss(tokenizer, train, test, [0], over='texts')
  own, fresh = (name(k=k, dictionary='memorised', text=of) for of in ('own', 'fresh'))
  table = 'generalization'
  return [
    Row(table, own, 'tokens', len(tokenizer.encode(text)), unit='tokens'),
    Row(table, fresh, 'tokens', sum(len(tokenizer.encode(part)) for part in test), unit='tokens'),
    *loss(table, fresh, '', found, f'memorised {len(text):,} characters, fresh {chars:,}'),
    *loss(table, fresh, 'char_unigram', source.ngram_loss(0)),
  ]


def _shifted(config: ConfigDict, source: markov.MarkovSource, k: int, size: int) -> list[Row]:
  """BPE learned at p = q = p′, counted and scored on this source."""
  seed, chars, table = config.seed, config.generalization.chars, 'generalization'
  train, test = (draw_parts(source, chars, seed, stream) for stream in (TRAIN, TEST))
  rows = []
  elsewhere = config.generalization.learned_at if config.source.kind == 'switching' else ()
  for learned_at in (None, *elsewhere):
    other = make_source(config, k, learned_at) if learned_at else source
    bpe = train_bpe(draw(other, chars, seed, DICTIONARY), size, source.alphabet)
    [found] = ngram.token_loss(bpe, train, test, [0], over='texts')
    row = name(k=k, dictionary='bpe', d=size, learned_at=learned_at or 'here')
    rows += loss(table, row, '', found, '' if learned_at else 'learned on this source')
    rows += loss(table, row, 'exact', parse.exact_unigram(bpe, source).nats_per_char)
  return rows
