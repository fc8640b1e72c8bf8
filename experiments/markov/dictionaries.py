# SPDX-License-Identifier: Apache-2.0
"""The tables without neural networks: m-gram models over characters and tokens of Markov text."""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.markov import markov_source
from experiments.markov.markov_source import PER_CHAR, make_source, over_sizes
from experiments.recipe import Pictures, Run, Table
from lib import stats
from lib.errors import InputError
from lib.evals import ngram
from lib.report.plots import Picture
from lib.report.results import Row, Rows, select
from lib.tasks.markov import dictionary_loss
from lib.tasks.markov.chains import DICTIONARY, TEST, TRAIN, MarkovSource, sample_parts, sample_text
from lib.threads import on_all_cores
from lib.tokenizers.base import Dictionary
from lib.tokenizers.blocks import LIMIT_BITS, Blocks
from lib.tokenizers.bpe import train_bpe_unsplit, train_sequential_bpe
from lib.tokenizers.lzw import train_lzw

COUNTS = {'dictionary_size': 'tokens', 'chars_per_token': 'chars/token'}
VACUOUS = 'the bound H∞/(1−ε) exceeds the character unigram here and is vacuous'
NOTES = {
  'worse': 'worse than a unigram over characters: each token is charged as if any other could '
  'follow it, and with few tokens and a high order that waste exceeds what a token saves',
  'sparse': 'a bigram worse than the unigram: it has d² counts to learn from the same characters',
  'unigram_above_exact': 'sampled less exact, paired by seed; above zero at large d, since d '
  'counts learned from N tokens cost about d/2N nats a token',
  'unigram_above_smaller': 'less the next smaller dictionary of the same encoder, paired by seed',
  'unigram_above_merges': 'less the same dictionary encoded by its merges, paired by seed',
  'unigram_above_characters': 'less the closed form of a unigram over characters',
}


def ngrams(config: ConfigDict, run: Run) -> Rows:
  """Character m-gram models against the closed form, context 0 … k + 1."""
  sizes, rows = config.ngram, Rows('ngram')

  def score(k: int) -> list[stats.Estimate]:
    source = make_source(config, k)
    symbols = lambda text: np.frombuffer(text, np.uint8) - source.alphabet[0]
    train = symbols(sample_text(source, sizes.train_chars, config.seed, TRAIN))
    test = [*map(symbols, sample_parts(source, sizes.test_chars, config.seed, TEST))]
    scores = [ngram.NGram(train, m, source.alphabet_size).by_document(test) for m in range(k + 2)]
    return [stats.ratio(nats, [*map(len, test)], over='texts') for nats in scores]

  note = f'counted on {sizes.train_chars:,} characters, scored on {sizes.test_chars:,} others'
  for k, scores in zip(config.orders, on_all_cores('ngram', score, [(k,) for k in config.orders])):
    for m, found in enumerate(scores):
      rows.add_loss({'k': k, 'm': m}, '', found, note)
      rows.add_loss({'k': k, 'm': m}, 'closed_form', make_source(config, k).ngram_loss(m))
  return rows


def blocks(config: ConfigDict, run: Run) -> Rows:
  """The toy tokenizer: the best unigram over blocks of r characters."""
  rows = Rows('blocks')

  def score(k: int, r: int) -> tuple[stats.Estimate, int]:
    source = make_source(config, k)
    train, test = (  # texts of whole blocks
      sample_parts(source, config.blocks.chars, config.seed, stream, multiple=r)
      for stream in (TRAIN, TEST)
    )
    [found] = ngram.token_loss(Blocks(source.alphabet, r), train, test, [0], over='texts')
    return found, sum(map(len, test))

  letters = make_source(config, config.orders[0]).alphabet_size
  jobs = list(itertools.product(config.orders, block_lengths(config)))
  for (k, r), (found, chars) in zip(jobs, on_all_cores('blocks', score, jobs), strict=True):
    where, note = {'k': k, 'r': r}, f'counted and scored on {chars:,} characters each'
    rows.add_loss(where, '', found, note)
    rows.add_loss(where, 'closed_form', make_source(config, k).block_entropy(r) / r)
    rows.add(where, 'dictionary_size', letters**r, 'tokens')
  return rows


def block_lengths(config: ConfigDict) -> list[int]:
  """The lengths of which all blocks can be counted."""
  letters = make_source(config, config.orders[0]).alphabet_size
  return [r for r in config.blocks.lengths if r * math.log2(letters) <= LIMIT_BITS]


def token_ngrams(config: ConfigDict, run: Run) -> Rows:
  """Unigram and bigram models over tokens, for each dictionary, size and encoder."""
  sizes, rows = config.token_ngram, Rows('token_ngram')
  seeds = range(config.seed, config.seed + sizes.seeds)

  def score(k: int, seed: int) -> list[tuple[dict[str, Any], dict[str, float]]]:
    """Coordinates and quantities of the dictionaries of one source, of every size and encoder."""
    source = make_source(config, k)
    learn_on, train, test = (
      sample_text(source, sizes[f'{what}_chars'], seed, stream)
      for what, stream in (('dictionary', DICTIONARY), ('train', TRAIN), ('test', TEST))
    )
    dense = sizes.exact_merges_up_to
    measure = lambda tokenizer: _token_losses(tokenizer, source, train, test, dense)
    found = []
    for learn in (train_bpe_unsplit, train_lzw):
      learned: Any = learn([learn_on], max(sizes.sizes), source.alphabet)
      before: dict[str, float] = {}  # encoder -> unigram loss of the next smaller dictionary
      for size in (size for size in sorted(sizes.sizes) if size <= learned.vocab_size):
        smaller = learned.smaller(size)
        for encoder in learned.encoders:
          one = measure(type(learned)(smaller.alphabet, smaller.merges, encoder))
          if encoder in before:
            one['unigram_above_smaller'] = one['unigram'] - before[encoder]
          before[encoder] = one['unigram']
          if encoder != 'merges' and 'merges' in before:  # computed first
            one['unigram_above_merges'] = one['unigram'] - before['merges']
          where = {'k': k, 'tokenizer': learned.family, 'encoder': encoder, 'd': size}
          found.append((where, one))
    where = {'k': k, 'tokenizer': 'sequential_bpe', 'encoder': 'merges'}
    sequential = train_sequential_bpe(learn_on, sizes.sequential_texts)
    return [*found, (where | {'texts': sizes.sequential_texts}, measure(sequential))]

  by_row: dict[tuple, list[dict[str, float]]] = defaultdict(list)  # coordinates -> seeds
  jobs = list(itertools.product(config.orders, seeds))
  for job in on_all_cores('token_ngram', score, jobs):
    for where, one in job:
      by_row[tuple(where.items())].append(one)
  for row, reached in by_row.items():
    where, source = dict(row), make_source(config, dict(row)['k'])
    means = {what: stats.mean([values[what] for values in reached]) for what in reached[0]}
    partly = f'{len(reached)} of {sizes.seeds} dictionaries grew so large'
    partly *= len(reached) < sizes.seeds
    notes = {what: NOTES.get(what, partly) for what in means}
    if means['unigram'].value > source.ngram_loss(0):
      notes['unigram'] = NOTES['worse']
    if means['bigram'].value > means['unigram'].value:
      notes['bigram'] = NOTES['sparse']
    for what, found in means.items():
      if what in COUNTS:
        rows.add(where, what, found, COUNTS[what], notes[what])
      else:
        rows.add_loss(where, what, found, notes[what])
    if (where['tokenizer'], where['encoder']) == ('lzw', 'greedy'):  # those of the theorem
      _add_bound(rows, where, source, int(means['dictionary_size'].value))
    rows.add_loss(where, 'entropy_rate', source.entropy_rate)
    rows.add_loss(where, 'char_unigram', source.ngram_loss(0))
  return rows


def _token_losses(
  tokenizer: Dictionary, source: MarkovSource, train: bytes, test: bytes, dense: int
) -> dict[str, float]:
  """All quantities of one dictionary and encoder, from one pair of streams."""
  unigram, bigram = (found.value for found in ngram.token_loss(tokenizer, [train], [test], [0, 1]))
  values = {'unigram': unigram, 'bigram': bigram, 'dictionary_size': tokenizer.vocab_size}
  values['unigram_above_characters'] = unigram - source.ngram_loss(0)
  largest = {'greedy': math.inf, 'merges': dense}  # that are solved exactly
  if tokenizer.vocab_size <= largest.get(tokenizer.encoder, 0):
    exact = dictionary_loss.exact_unigram(tokenizer, source)
    values |= {'exact_unigram': exact.nats_per_char, 'chars_per_token': exact.chars_per_token}
    values['unigram_above_exact'] = unigram - exact.nats_per_char
  else:
    values['chars_per_token'] = len(test) / len(tokenizer.encode(test))
  return values


def _add_bound(
  rows: Rows, where: Mapping[str, Any], source: MarkovSource, size: int
) -> float | None:
  """The theorem's bound, or None if a unigram over characters already meets it."""
  bound = dictionary_loss.dictionary_bound(source.entropy_rate, source.min_probability, size)
  vacuous = dictionary_loss.vacuous(bound, source.ngram_loss(0))
  found, note = (None, VACUOUS) if vacuous else (bound, '')
  rows.add(where, 'bound_nats_per_char', found, 'nats/char', note)
  return found


def bound(config: ConfigDict, run: Run) -> Rows:
  """LZW against the theorem's bound H∞/(1 − ε), and the toy tokenizer at the same size.

  The loss of a dictionary is computed exactly; the text that it is learned from varies.
  """
  sizes, rows = config.bound, Rows('bound')

  def score(p: float | None, seed: int) -> dict[int, float]:
    """Dictionary size -> nats per character, for one dictionary."""
    source = make_source(config, 1, p)
    text = sample_text(source, sizes.chars, seed, DICTIONARY)
    learned = train_lzw([text], max(sizes.sizes), source.alphabet)
    return {
      size: dictionary_loss.exact_unigram(learned.smaller(size), source).nats_per_char
      for size in sizes.sizes
      if size <= learned.vocab_size
    }

  seeds = range(config.seed, config.seed + sizes.seeds)
  jobs = list(itertools.product(markov_source.probabilities(config, sizes.probabilities), seeds))
  by_row: dict[tuple, list[float]] = defaultdict(list)
  for (p, _), found in zip(jobs, on_all_cores('bound', score, jobs), strict=True):
    for size, nats in found.items():
      by_row[p, size].append(nats)
  text = f'learned from up to {sizes.chars:,} characters'
  for (p, size), values in by_row.items():
    source, where = make_source(config, 1, p), {'p': p or config.source.kind, 'd': size}
    lzw = stats.mean(values)
    length = max(1, int(math.log(size) / math.log(source.alphabet_size) + 1e-9))
    rows.add_loss(where, 'lzw', lzw, f'computed exactly; a dictionary a seed, each {text}')
    rows.add_loss(where, 'toy', source.block_entropy(length) / length)
    rows.add_loss(where, 'entropy_rate', source.entropy_rate)
    limit = _add_bound(rows, where, source, size)
    holds = None if limit is None else float(lzw.value <= limit)
    rows.add(where, 'holds', holds, 'yes/no', VACUOUS if limit is None else '')
  return rows


def generalization(config: ConfigDict, run: Run) -> Rows:
  """The loss of a dictionary learned on one text or source on another."""
  rows, seed, sizes = Rows('generalization'), config.seed, config.generalization
  for k in config.orders:
    source = make_source(config, k)
    train, test = (sample_parts(source, sizes.chars, seed, stream) for stream in (TRAIN, TEST))
    # The dictionary {whole training text} ∪ alphabet: one token there, characters anywhere else.
    text = sample_text(source, min(sizes.chars, 200_000), seed, DICTIONARY)
    letters = [bytes([letter]) for letter in source.alphabet]
    memorised = Dictionary([*letters, text], alphabet=source.alphabet)
    [found] = ngram.token_loss(memorised, train, test, [0], over='texts')
    own, fresh = ({'k': k, 'dictionary': 'memorised', 'text': of} for of in ('own', 'fresh'))
    rows.add(own, 'tokens', len(memorised.encode(text)), 'tokens')
    rows.add(fresh, 'tokens', sum(len(memorised.encode(part)) for part in test), 'tokens')
    rows.add_loss(fresh, '', found, f'memorised {len(text):,} characters, fresh {sizes.chars:,}')
    rows.add_loss(fresh, 'char_unigram', source.ngram_loss(0))
    elsewhere = sizes.learned_at if config.source.kind == 'switching' else ()
    for size, learned_at in itertools.product(sizes.sizes, (None, *elsewhere)):
      learn_on = sample_text(make_source(config, k, learned_at), sizes.chars, seed, DICTIONARY)
      bpe = train_bpe_unsplit([learn_on], size, source.alphabet)
      [found] = ngram.token_loss(bpe, train, test, [0], over='texts')
      where = {'k': k, 'dictionary': 'bpe', 'd': size, 'learned_at': learned_at or 'here'}
      rows.add_loss(where, '', found, '' if learned_at else 'learned on this source')
      rows.add_loss(where, 'exact', dictionary_loss.exact_unigram(bpe, source).nats_per_char)
  return rows


def token_pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Loss against dictionary size, a panel for each order."""
  panels = []
  for k in config.orders:
    of = lambda column, tokenizer, encoder, k=k: select(
      rows, 'token_ngram', f'{column}_nats_per_char', k=k, tokenizer=tokenizer, encoder=encoder
    )
    found = {
      'BPE, merges: unigram': of('unigram', 'bpe', 'merges'),
      'BPE, greedy: unigram': of('unigram', 'bpe', 'greedy'),
      'BPE, minimal: unigram': of('unigram', 'bpe', 'minimal'),
      'LZW, greedy: unigram': of('unigram', 'lzw', 'greedy'),
      'BPE, merges: bigram': of('bigram', 'bpe', 'merges'),
      'bound for LZW, where not vacuous': of('bound', 'lzw', 'greedy'),
    }
    across = markov_source.levels(make_source(config, k))
    panels += over_sizes(f'order k = {k}', PER_CHAR, found, across)
  caption = (
    'Loss of unigrams and bigrams over the tokens of learned dictionaries, against their size, '
    'between the entropy rate and a unigram over characters.'
  )
  return {'token_ngram.png': Picture(caption, panels)}


def bound_pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """LZW, the toy tokenizer and the bound, a panel for each p."""
  panels = []
  of = lambda column, p: select(rows, 'bound', f'{column}_nats_per_char', p=p)
  for p in dict.fromkeys(row.where['p'] for row in select(rows, 'bound', 'toy_nats_per_char')):
    rate = of('entropy_rate', p)[0].measured or 0.0
    found = {
      'LZW, exact for each dictionary': of('lzw', p),
      'fixed blocks, closed form': of('toy', p),
      'bound H∞/(1−ε) for LZW, where not vacuous': of('bound', p),
    }
    panels += over_sizes(f'order 1, p = {p}', PER_CHAR, found, {'entropy rate H∞': rate})
  caption = (
    'Loss of a unigram over an LZW dictionary, over fixed blocks of as many tokens, and the '
    'theorem’s bound for LZW. Bars: one standard error over dictionaries.'
  )
  return {'bound.png': Picture(caption, panels)}


def check_blocks(config: ConfigDict) -> None:
  """Raises InputError for blocks that are all too long, or invalid sources."""
  markov_source.check(config)
  if not block_lengths(config):
    raise InputError(
      f'blocks.lengths must have a length whose blocks are at most 2**{LIMIT_BITS} different ones; '
      f'got {tuple(config.blocks.lengths)}.'
    )


def check_token_ngram(config: ConfigDict) -> None:
  """Raises InputError for invalid dictionaries, or texts for them that are too short."""
  check_sizes(config, 'token_ngram')
  most = config.token_ngram.dictionary_chars // 2
  if config.token_ngram.sequential_texts > most:
    raise InputError(
      f'token_ngram.sequential_texts must be at most {most:,}, half of '
      f'token_ngram.dictionary_chars; got {config.token_ngram.sequential_texts:,}.'
    )


def check_sizes(config: ConfigDict, table: str) -> None:
  """Raises InputError for dictionaries smaller than their alphabet, or invalid sources."""
  options = config[table]
  markov_source.check(config, options.sizes, f'{table}.sizes')
  for p in markov_source.probabilities(
    config, options.get('probabilities') or options.get('learned_at') or ()
  ):
    make_source(config, 1, p)


NGRAM = Table(
  'ngram',
  ngrams,
  caption='Character models with m characters of context on order-k sources: ln 2 until m = k, '
  'the entropy rate from there.',
  shown=('nats_per_char', 'closed_form_nats_per_char'),
  check=markov_source.check,
)
BLOCKS = Table(
  'blocks',
  blocks,
  caption='The toy tokenizer: the best unigram over blocks of r characters.',
  shown=('nats_per_char', 'closed_form_nats_per_char'),
  check=check_blocks,
)
TOKEN_NGRAM = Table(
  'token_ngram',
  token_ngrams,
  caption='Models over tokens, mean ± one standard error over seeds (each with its own '
  'dictionary and streams). `exact_unigram` is computed, not sampled.',
  shown=(
    'unigram_nats_per_char',
    'exact_unigram_nats_per_char',
    'bigram_nats_per_char',
    'entropy_rate_nats_per_char',
  ),
  rows=lambda where: (
    (where['tokenizer'], where['encoder']) in (('bpe', 'merges'), ('lzw', 'greedy'))
    or 'texts' in where
  ),
  check=check_token_ngram,
  pictures=token_pictures,
)
BOUND = Table(
  'bound',
  bound,
  caption='LZW dictionaries against the main theorem (its constant recalled, not read). The loss '
  'of a dictionary is computed exactly; ± is one standard error over dictionaries.',
  shown=('lzw_nats_per_char', 'toy_nats_per_char', 'bound_nats_per_char', 'holds'),
  check=lambda config: check_sizes(config, 'bound'),
  pictures=bound_pictures,
)
GENERALIZATION = Table(
  'generalization',
  generalization,
  caption='A dictionary that memorises its training text; BPE learned at p = q = '
  '`learned_at` and used on this source.',
  shown=('tokens', 'nats_per_char', 'exact_nats_per_char'),
  check=lambda config: check_sizes(config, 'generalization'),
)
