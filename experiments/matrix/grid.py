# SPDX-License-Identifier: Apache-2.0
"""The grid: one small model for each tokenizer, embedding and seed, at equal FLOPs of training."""

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.equal_info import texts
from experiments.matrix import models, tokens
from experiments.matrix.corpus import Corpus
from experiments.visual_unicode.models import fit_model
from lib.errors import InputError
from lib.models.decoder import LanguageModel
from lib.report.results import Row, mean_and_sem, name

GRID, TOKENIZERS, UNTRIED = 'grid', 'tokenizers', 'untried'
CAPTIONS = {
  GRID: 'Bits per byte of held-out text, mean ± standard error over seeds. Tokenizers meet the '
  'same examples of equally many bytes, each scored to its last byte, and all cells have equal '
  'FLOPs of training by formula. A cell that cannot be says why.',
  TOKENIZERS: 'What each tokenizer makes of the text, what a byte costs to read, M1 included, and '
  'the steps that equal FLOPs leave it.',
  UNTRIED: 'Cells that no paper known to us measured: random rows or glyphs for windows of '
  'compressed text, glyphs for subwords; beside learned rows over the same tokens (paired by '
  'seed), and beside the same embedding over the tokens that its paper used. Taken from the rows '
  'of the grid.',
}
SUMMARY = {
  GRID: ('', ('bits_per_byte', 'bytes_per_token', 'mflops_per_byte', 'tokens_per_second')),
  TOKENIZERS: (
    '',
    ('vocab_size', 'bytes_per_token', 'mflops_per_byte', 'steps', 'unigram_bits_per_byte'),
  ),
  UNTRIED: ('', ('bits_per_byte', 'above_learned_bits_per_byte', 'above_usual_bits_per_byte')),
}
USUAL = {'lexinvariant': 'characters', 'glyph': 'unicode'}  # the tokens of an embedding's paper


def check(config: ConfigDict) -> None:
  """Raises InputError for cells that are none, and sizes that cannot be."""
  options = config.grid
  for field in ('tokenizers', 'embeddings'):
    if not options[field]:
      raise InputError(f'grid.{field} must name at least one.')
  for field in ('layers', 'heads', 'dim', 'seeds', 'side_by_side', 'example_bytes', 'batch_bytes',
                'train_bytes', 'test_bytes'):  # fmt: skip
    if options[field] < 1:
      raise InputError(f'grid.{field} must be 1 or more; got {options[field]}.')
  if not options.teraflops > 0:
    raise InputError(f'grid.teraflops must be above 0; got {options.teraflops}.')
  tokens.check(config)
  models.check(config)
  for split in ('train', 'test'):
    texts.stretches(config, split, options.example_bytes, options.example_bytes)


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains all cells, tokenizer by tokenizer; rows of the tables grid, tokenizers and untried."""
  rows = []
  for tokenizer in config.grid.tokenizers:
    corpus = Corpus(config, run, tokenizer)
    rows += _tokenizer(config, corpus)
    for embedding in config.grid.embeddings:
      rows += _cell(config, run, corpus, embedding)
  return rows + untried(rows, config)


def row_of(tokenizer: str, embedding: str) -> str:
  """The row of a cell."""
  return name(tokenizer=tokens.label(tokenizer), embedding=embedding)


def parameters(model: LanguageModel, corpus: Corpus) -> int:
  """Of the decoder, without embedding and readout."""
  batch, key = next(iter(corpus.batches(0))), jax.random.key(0)
  shapes = jax.eval_shape(lambda: model.init(key, batch, key))
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes['params']['decoder']))


def _tokenizer(config: ConfigDict, corpus: Corpus) -> list[Row]:
  """What a tokenizer is and costs, whatever the embedding."""
  size = parameters(models.make(config, corpus.tokenizer, 'random'), corpus)
  forward, steps = corpus.forward(size), corpus.steps(size)
  row = name(tokenizer=tokens.label(corpus.name))
  put = lambda column, value, unit='', note='': Row(
    TOKENIZERS, row, column, value, unit=unit, note=note
  )
  note = '' if corpus.tokenizer.lossless else (
    'not lossless: texts that share tokens are not told apart, and bits understate'
  )  # fmt: skip
  read = steps * corpus.step_bytes
  spent = (3 * forward + corpus.m1_flops) * read
  return [
    put('vocab_size', corpus.tokenizer.vocab_size, 'ids', note),
    put('bytes_per_token', corpus.bytes_per_token, 'bytes/token'),
    put('mflops_per_byte', (forward + corpus.m1_flops) / 1e6, 'MFLOP/byte',
        'to read a byte, forward' + (
          f'; {corpus.m1_flops / 1e6:.3f} of M1' if corpus.m1_flops else ''
        )),
    put('row_tokens', corpus.length, 'tokens'),
    put('steps', steps, 'steps'),
    put('training_bytes', read, 'bytes', f'of {corpus.train.bytes:,} bytes of text'),
    put('training_gflops', spent / 1e9, 'GFLOP'),
    *(put(column, value, 'bits/byte') for column, value in corpus.levels().items()),
  ]  # fmt: skip


def _cell(config: ConfigDict, run: runner.Run, corpus: Corpus, embedding: str) -> list[Row]:
  """What the models of a cell reach, or why there is none."""
  row = row_of(corpus.name, embedding)
  try:
    model = models.make(config, corpus.tokenizer, embedding)
  except InputError as error:
    return [Row(GRID, row, 'bits_per_byte', None, unit='bits/byte', note=f'impossible: {error}')]
  size = parameters(model, corpus)
  trained = fit_model(
    config, run, sized(config, corpus.steps(size)), f'{GRID}/{row}', model, corpus.batches,
    {'test': list(corpus.held_out())},
  )  # fmt: skip
  found = [one.history[-1]['test/bits_per_byte'][one.index] for one in trained]
  rates = [line['tokens_per_second'] for line in trained[0].history if 'tokens_per_second' in line]
  put = lambda column, value, error=None, unit='', note='': Row(
    GRID, row, column, value, error, unit=unit, note=note
  )
  rows = [
    put('bits_per_byte', *mean_and_sem(found), 'bits/byte',
        f'{corpus.test.bytes:,} held-out bytes in examples of {config.grid.example_bytes}'),
    put('bytes_per_token', corpus.bytes_per_token, unit='bytes/token'),
    put('mflops_per_byte', (corpus.forward(size) + corpus.m1_flops) / 1e6, unit='MFLOP/byte'),
    put('tokens_per_second', float(np.median(rates)), unit='tokens/s',
        note=f'in training, {min(config.grid.side_by_side, config.grid.seeds)} seeds together'),
  ]  # fmt: skip
  for seed, value in enumerate(found, start=config.seed):
    one = f'{row},{name(seed=seed)}'
    rows.append(Row(GRID, one, 'bits_per_byte', value, unit='bits/byte'))
  return rows


def sized(config: ConfigDict, steps: int) -> ConfigDict:
  """The section grid with so many steps, scored before the first and after the last."""
  return ConfigDict(config.grid.to_dict() | {'steps': steps, 'evaluate_every': steps})


def untried(rows: list[Row], config: ConfigDict) -> list[Row]:
  """The rows of cells that no paper measured, computed from the rows of the grid."""
  bits = {row.row: row for row in rows if row.table == GRID and row.column == 'bits_per_byte'}
  seeds = range(config.seed, config.seed + config.grid.seeds)

  def values(tokenizer: str, embedding: str) -> list[float | None]:
    found = [bits.get(f'{row_of(tokenizer, embedding)},{name(seed=seed)}') for seed in seeds]
    return [row.measured if row else None for row in found]

  found = []
  for embedding, usual in USUAL.items():
    for tokenizer in config.grid.tokenizers:
      new = tokens.by_windows(tokenizer) or (embedding == 'glyph' and tokenizer == 'bpe')
      own = bits.get(row_of(tokenizer, embedding))
      if not new or own is None:
        continue
      found.append(Row(UNTRIED, own.row, own.column, own.measured, own.sem, unit=own.unit,
                       note=own.note))  # fmt: skip
      for column, other in (('above_learned', (tokenizer, 'learned')),
                            ('above_usual', (usual, embedding))):  # fmt: skip
        pairs = zip(values(tokenizer, embedding), values(*other), strict=True)
        gaps = [a - b for a, b in pairs if a is not None and b is not None]
        note = f'less {row_of(*other)}'
        mean, sem = mean_and_sem(gaps) if gaps else (None, None)
        note = note if gaps else f'{row_of(*other)} was not measured'
        found.append(Row(UNTRIED, own.row, f'{column}_bits_per_byte', mean, sem,
                         unit='bits/byte', note=note))  # fmt: skip
  return found
