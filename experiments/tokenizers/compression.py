# SPDX-License-Identifier: Apache-2.0
"""Tables `compression` and `transition`: tokens saved by crossing spaces, and when to begin."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.recipe import Pictures, Run, Table, naming
from lib import stats
from lib.data import sources
from lib.report import plots
from lib.report.results import Row, Rows, select
from lib.threads import on_all_cores
from lib.tokenizers import Tokenizer, pretokenizers, registry
from lib.tokenizers.bpe import BPE, train_bpe
from lib.tokenizers.pairs import PairDictionary
from lib.tokenizers.superbpe import train_superbpe

WITHIN = 'bpe'  # whose tokens stay within words
FAMILIES = (WITHIN, 'bpe_unsplit', 'superbpe', 'boundless')
RULE = 'words'
OVER = 'documents'
Sizes = np.ndarray  # int64 [D], tokens of each held-out document


def check(config: ConfigDict, table: str) -> None:
  """Raises InputError for texts that are not there."""
  with naming(f'{table}.texts'):
    for text in config[table].texts:
      for split in ('train', 'test'):
        sources.open_source(text, split)


def measure(config: ConfigDict, run: Run) -> Rows:
  """Bytes per token of each family at each size, on held-out text."""
  options, rows = config.compression, Rows('compression')
  jobs = [(options, text, family) for text in options.texts for family in FAMILIES]
  found = on_all_cores('compression', _sizes_of, jobs)
  tokens = {(text, family): one for (_, text, family), one in zip(jobs, found, strict=True)}
  for text in options.texts:
    held = _held_out(options, text)
    add = functools.partial(_add, rows, held)
    of = lambda family, size: tokens[text, family][size]
    rules = {outer_rule(of(family, size)[1]) for family in FAMILIES for size in options.vocab_sizes}
    pieces = {
      rule: np.array([pretokenizers.cut(document, rule).size for document in held])
      for rule in sorted({RULE, *rules} - {'none'})
    }
    for rule, counts in pieces.items():
      where = {'text': text, 'tokenizer': 'bound', 'rule': rule}
      add(where, counts, note='one token for each piece of the rule')
    for size in options.vocab_sizes:
      for family in FAMILIES:
        counts, made = of(family, size)
        where = {'text': text, 'vocab_size': size, 'tokenizer': family}
        within, unsplit = (of(one, size)[0] for one in FAMILIES[:2])
        add(where, counts, within, about(made))
        rows.add(
          where, 'share_of_bound', stats.ratio(pieces[RULE], counts, over=OVER), 'words per token'
        )
        if (own := outer_rule(made)) in pieces:
          share = stats.ratio(pieces[own], counts, over=OVER)
          rows.add(where, 'share_of_own_bound', share, 'pieces per token', f'rule {own}')
        fewer = stats.ratio(unsplit - counts, unsplit, over=OVER)
        rows.add(where, 'fewer_tokens_than_unsplit', fewer, 'share', 'than bpe_unsplit')
  return rows


def outer_rule(tokenizer: Tokenizer) -> str:
  """The rule between whose pieces no token of the tokenizer joins bytes."""
  return getattr(tokenizer, 'outer_rule', getattr(tokenizer, 'rule', 'none'))


def about(tokenizer: Tokenizer) -> str:
  """How many ids it has, and how it splits text."""
  rule = getattr(tokenizer, 'rule', 'none')
  return f'{tokenizer.vocab_size:,} ids; rule {rule}'


def transition(config: ConfigDict, run: Run) -> Rows:
  """Bytes per token by the share of the vocabulary that is learned within words."""
  options, rows = config.transition, Rows('transition')
  for text in options.texts:
    documents, held = _training(options, text), _held_out(options, text)
    words = train_bpe(documents, options.vocab_size, RULE)
    jobs = [(options, documents, words, held, share) for share in options.shares]
    found = on_all_cores('transition', _at_share, jobs)
    within = count(words, held)
    for share, (counts, made) in zip(options.shares, found, strict=True):
      where = {'text': text, 'share': share}
      _add(rows, held, where, counts, within, about(made))
      earliest = found[np.argmin(options.shares)][0]
      fewer = stats.ratio(earliest - counts, earliest, over=OVER)
      rows.add(where, 'fewer_tokens_than_first', fewer, 'share', 'than the smallest share')
  return rows


def count(tokenizer: Tokenizer, documents: Sequence[bytes]) -> Sizes:
  """Tokens of each document."""
  return np.array([ids.size for ids in tokenizer.encode_batch(documents)])


def _training(options: ConfigDict, text: str) -> list[bytes]:
  return sources.sample(sources.open_source(text, 'train'), options.train_bytes)


def _held_out(options: ConfigDict, text: str) -> list[bytes]:
  return sources.sample(sources.open_source(text, 'test'), options.test_bytes)


def _sizes_of(options: ConfigDict, text: str, family: str) -> dict[int, tuple[Sizes, Tokenizer]]:
  """Tokens of the held-out documents by the size of the vocabulary.

  Dictionaries of pairs are the first tokens of larger ones; SuperBPE inherits its words.
  """
  documents, held = _training(options, text), _held_out(options, text)
  largest = max(options.vocab_sizes)
  family_of_words = WITHIN if family == 'superbpe' else family
  made = registry.train(family_of_words, documents, largest, min_count=1)  # all reach their size
  assert isinstance(made, PairDictionary)
  first = lambda size: made.smaller(min(size, made.vocab_size))
  found: dict[int, tuple[Sizes, Tokenizer]] = {}
  for size in options.vocab_sizes:
    one = first(max(256, size // 2) if family == 'superbpe' else size)
    if family == 'superbpe' and isinstance(one, BPE):
      one = train_superbpe(documents, size, parent=one)
    found[size] = count(one, held), one
  return found


def _at_share(
  options: ConfigDict, documents: Sequence[bytes], words: BPE, held: Sequence[bytes], share: float
) -> tuple[Sizes, Tokenizer]:
  size = min(max(256, round(share * options.vocab_size)), words.vocab_size)
  made = train_superbpe(documents, options.vocab_size, parent=words.smaller(size))
  return count(made, held), made


def _add(
  rows: Rows,
  held: Sequence[bytes],
  where: Mapping[str, Any],
  counts: Sizes,
  within: Sizes | None = None,
  note: str = '',
) -> None:
  sizes = [*map(len, held)]
  found = stats.ratio(sizes, counts, over=OVER)
  rows.add(where, 'bytes_per_token', found, 'bytes/token', f'{note}; {sum(sizes):,} bytes')
  if within is not None:
    fewer = stats.ratio(within - counts, within, over=OVER)
    note = f'than bpe within words, rule {RULE}'
    rows.add(where, 'fewer_tokens', fewer, 'share', note)
    more = stats.ratio(within - counts, counts, over=OVER)
    rows.add(where, 'more_bytes_per_token', more, 'share', note)


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Bytes per token against the size of the vocabulary, and the bound."""
  panels = []
  for text in config.compression.texts:
    of = lambda **where: select(rows, 'compression', 'bytes_per_token', **where)
    series = {
      family: [(int(row.where['vocab_size']), row) for row in of(text=text, tokenizer=family)]
      for family in FAMILIES
    }
    bound = [row.measured or 0.0 for row in of(text=text, tokenizer='bound', rule=RULE)]
    levels = dict(zip(['one token for each word'], bound))
    panels.append(
      plots.row_curves(
        text, 'ids of the vocabulary', 'bytes per token', series, levels=levels, log_x=True
      )
    )
  caption = 'Bytes per token of held-out text; no tokenizer within words can be above the line.'
  return {'compression.png': plots.Picture(caption, panels)}


def transition_pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Tokens saved against the share that is learned within words."""
  found = select(rows, 'transition', 'fewer_tokens')
  series = {
    text: [(float(row.where['share']), row) for row in found if row.where['text'] == text]
    for text in config.transition.texts
  }
  title = f'SuperBPE of {config.transition.vocab_size:,} ids'
  panel = plots.row_curves(title, 'share learned within words', 'share of tokens saved', series)
  caption = (
    'Tokens saved, compared with BPE within words on the same documents, by the share of the ids '
    'that SuperBPE learns within words.'
  )
  return {'transition.png': plots.Picture(caption, [panel])}


COMPRESSION = Table(
  'compression',
  measure,
  'Bytes per token of held-out text by the size of the vocabulary. `bpe` stays within words (rule '
  '`words`), `bpe_unsplit` cuts no text, `superbpe` learns the first half of its tokens within '
  'words and the rest across them, `boundless` joins neighbouring words that are one token each '
  'once their pair is the most frequent. `bound` has one token for each piece of a rule, the most '
  'bytes per token of any tokenizer whose tokens stay within these pieces. `share_of_bound` is '
  'relative to the bound of the rule `words`: above 1, text is shorter than within words is '
  'possible. `share_of_own_bound` is relative to the bound of the rule that the tokenizer never '
  'crosses, and at most 1. `fewer_tokens` is compared with `bpe` on the same documents. ± is one '
  'standard error over documents.',
  (
    'bytes_per_token',
    'fewer_tokens',
    'more_bytes_per_token',
    'fewer_tokens_than_unsplit',
    'share_of_bound',
    'share_of_own_bound',
  ),
  check=functools.partial(check, table='compression'),
  pictures=pictures,
  sources=lambda config: config.compression.texts,
)
TRANSITION = Table(
  'transition',
  transition,
  'Bytes per token of SuperBPE by the share of its vocabulary that is learned within words; at 1 '
  'it is BPE within words, at 0 BPE across words (with the vetoes of SuperBPE). ± is one standard '
  'error over documents.',
  ('bytes_per_token', 'fewer_tokens', 'fewer_tokens_than_first'),
  check=functools.partial(check, table='transition'),
  pictures=transition_pictures,
  sources=lambda config: config.transition.texts,
)
