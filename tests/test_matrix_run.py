# SPDX-License-Identifier: Apache-2.0
"""The grid of tokenizers and embeddings: every cell builds, costs are those by hand, and a run."""

import itertools
import json
import math

import jax
import numpy as np
import pytest

from configs import common, matrix
from experiments.equal_info.m2 import BY_M1
from experiments.matrix import __main__ as recipe
from experiments.matrix import grid, markov, models, plots, tokens
from experiments.matrix.corpus import Corpus
from experiments.runner import Run
from lib import tokenizers
from lib.data.markov import switching
from lib.errors import InputError
from lib.evals import parse
from lib.models.byte_model import ByteModel
from lib.report import claims
from lib.report.results import Row
from lib.tokenizers import Characters, Dictionary
from lib.train import language_model, sharding
from tests import addresses

TOKENIZERS = (*matrix.DICTIONARIES, 'numbered12')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  mesh = sharding.make_mesh({'data': -1}, jax.devices()[:1])
  return Run(tmp_path_factory.mktemp('matrix'), mesh)


@pytest.fixture(scope='module')
def smoke(run):
  """The rows of a run at smoke scale by table, row and column."""
  config = matrix.get_config('smoke')
  recipe.check(config)
  rows = [row for table in config.tables for row in recipe.RECIPE.tables[table](config, run)]
  return {(row.table, row.row, row.column): row for row in rows}


@pytest.fixture(scope='module')
def corpora(run, smoke):
  """The text of the smoke scale as tokens of every tokenizer of the cpu scale."""
  config = matrix.get_config('smoke')
  return {name: Corpus(config, run, name) for name in TOKENIZERS}


def both_ends(embedding, batch, key):
  draw = embedding.draw(key, batch)
  return embedding.nats(embedding.encode(batch['inputs'], draw), batch['targets'], draw)


def test_every_cell_builds_and_those_that_the_run_has_not_step(corpora):
  # BPE under all embeddings and all tokenizers under learned rows are trained in the run or take a
  # step here (random rows and codes are the program of glyphs); of the others the embedding, which
  # is all that differs, is built by shapes.
  config, key, rng = matrix.get_config('smoke'), jax.random.key(0), np.random.default_rng(0)
  stepped = {('bpe', 'lexinvariant'), *((name, 'learned') for name in TOKENIZERS)}
  stepped -= set(itertools.product(config.grid.tokenizers, config.grid.embeddings))
  assert len(stepped) == 8
  for name, kind in itertools.product(TOKENIZERS, models.EMBEDDINGS):
    tokenizer, batch = corpora[name].tokenizer, next(iter(corpora[name].batches(0)))
    model = models.make(config, tokenizer, kind)
    make = lambda model=model, batch=batch: model.embedding.init_with_output(
      key, batch, key, method=both_ends
    )
    nats, variables = jax.eval_shape(make)
    assert nats.shape == batch['targets'].shape
    assert ('frozen' in variables) == (kind in ('glyph', 'random', 'code'))
    if (name, kind) in stepped:
      init_fn, loss_fn = language_model.loss_and_init(model)
      small = lambda leaf: rng.normal(scale=0.02, size=leaf.shape).astype(leaf.dtype)
      step = jax.jit(jax.value_and_grad(lambda v, batch, f=loss_fn: f(v, batch, key)[0]))
      shapes = jax.eval_shape(init_fn, key, batch)
      loss, gradient = step(jax.tree.map(small, shapes), batch)
      assert float(loss) == pytest.approx(math.log(tokenizer.vocab_size), rel=0.02)
      assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_tokenizers_meet_the_same_bytes_whole(corpora):
  config = matrix.get_config('smoke')
  for name, corpus in corpora.items():
    assert corpus.test.bytes == corpora['bytes'].test.bytes, name
    assert len(corpus.train) == len(corpora['bytes'].train)
    batches = list(corpus.held_out())
    assert sum(int(batch['bytes'].sum()) for batch in batches) == corpus.test.bytes
    for batch in batches:
      for row in range(len(batch['bytes'])):
        for segment in set(batch['segments'][row].tolist()) - {0}:
          inside = batch['segments'][row] == segment
          assert batch['bytes'][row, inside].sum() == config.grid.example_bytes
          assert batch['inputs'][row, inside][0] == corpus.tokenizer.vocab_size
    assert corpus.tokenizer.lossless
    assert corpus.tokenizer.vocab_size <= (4096 if name == 'numbered12' else 768)


def test_flops_by_hand(corpora):
  # Bytes at smoke: examples of 32 tokens, of which token t sees t; L = 1, D = 16, V = 256.
  forward = corpora['bytes'].forward(1000)
  assert forward == pytest.approx(2 * (1000 + 256 * 16) + 4 * 16 * (33 / 2))
  assert corpora['bytes'].m1_flops == 0
  assert corpora['numbered12'].m1_flops > 0


def test_cells_have_equal_flops(smoke):
  config = matrix.get_config('smoke')
  spent = {row: cell for (table, row, column), cell in smoke.items()
           if (table, column) == ('tokenizers', 'training_gflops')}  # fmt: skip
  assert len(spent) == len(config.grid.tokenizers)
  for row, cell in spent.items():
    steps = smoke['tokenizers', row, 'steps'].measured
    assert cell.measured == pytest.approx(1e3 * config.grid.teraflops, rel=0.6 / steps)


def test_all_cells_are_measured(smoke):
  config = matrix.get_config('smoke')
  for tokenizer, embedding in itertools.product(config.grid.tokenizers, config.grid.embeddings):
    row = grid.row_of(tokenizer, embedding)
    bits = smoke['grid', row, 'bits_per_byte']
    single = [smoke['grid', f'{row},seed={seed}', 'bits_per_byte'].measured for seed in (0, 1)]
    assert bits.measured == pytest.approx(np.mean(single))
    assert bits.sem == pytest.approx(abs(single[0] - single[1]) / 2)
    level = smoke['tokenizers', f'tokenizer={tokenizer}', 'uniform_bits_per_byte'].measured
    assert bits.measured < level  # which an untrained model has at best
    for column in ('bytes_per_token', 'mflops_per_byte', 'tokens_per_second'):
      assert smoke['grid', row, column].measured > 0


def test_untried_cells_stand_beside_those_they_are_compared_with(smoke):
  untried = {row for table, row, _ in smoke if table == 'untried'}
  assert untried == {
    'tokenizer=numbered12,embedding=glyph',
    'tokenizer=bpe,embedding=glyph',
  }
  row = 'tokenizer=bpe,embedding=glyph'
  gap = smoke['untried', row, 'above_learned_bits_per_byte']
  bits = lambda row: smoke['grid', row, 'bits_per_byte'].measured
  assert gap.measured == pytest.approx(bits(row) - bits('tokenizer=bpe,embedding=learned'))
  missing = smoke['untried', row, 'above_usual_bits_per_byte']
  assert missing.measured is None
  assert missing.note == 'tokenizer=unicode,embedding=glyph was not measured'


def test_what_the_report_says_of_the_grid_is_of_rows_that_it_has(smoke):
  assert addresses.faults('matrix', [*smoke.values()]) == []
  judged = claims.judge_all('matrix', [*smoke.values()], same_sizes=False)
  assert any(outcome.comparisons for one in judged for outcome in one.outcomes)


def test_pictures_are_drawn_impossible_cells_too(smoke, run):
  config = matrix.get_config('smoke')
  row = grid.row_of('bpe', 'glyph')
  rows = [cell for cell in smoke.values() if row not in cell.row]
  rows.append(Row('grid', row, 'bits_per_byte', None, note='impossible: for a reason'))
  drawn = plots.draw(rows, config, run)
  assert drawn == ['matrix.png', 'pareto.png', 'markov.png']
  assert all((run.workdir / picture).stat().st_size > 5000 for picture in drawn)


def test_a_cell_that_cannot_be_says_why(run, corpora):
  config = matrix.get_config('smoke')
  config.grid.dim = 24
  [row] = grid._cell(config, run, corpora['bytes'], 'code')
  assert row.measured is None
  assert row.note.startswith('impossible: codes of 16 bits do not fit 256 tokens')


def test_a_tokenizer_file_is_one_of_the_grid(run, tmp_path):
  config = matrix.get_config('smoke')
  path = tmp_path / 'mine.tok'
  tokenizers.save(Characters(), path)
  config.grid.tokenizers = (str(path),)
  recipe.check(config)
  assert tokens.make(config, run, str(path)).fingerprint == Characters().fingerprint
  assert tokens.label(str(path)) == 'mine'


def test_the_cost_of_m1_is_two_flops_a_parameter(run, smoke):
  config = matrix.get_config('smoke')
  size = ByteModel.load(run.workdir / 'm1').parameters
  assert tokens.m1_flops(config, run, 'numbered12') == 2 * size
  assert 'numbered' in BY_M1
  assert tokens.m1_flops(config, run, 'bpe') == 0


def test_blocks_are_cut_two_by_two():
  blocks = tokens.train_blocks([b'abababab', b'cd'], 258)
  assert [blocks.pieces[i] for i in blocks.encode(b'ababcde')] == [b'ab', b'ab', b'cd', b'e']
  assert blocks.vocab_size == 258


def test_windows_of_a_known_source_are_the_dictionary_they_are_taken_for():
  source = switching(0.8, 0.8, 2)
  config = matrix.get_config('smoke')
  windows = markov.make_tokenizer(config, source, 'numbered', 12)
  dictionary = markov.written(windows, source)
  text = source.text(5000, 0)
  pieces = [dictionary.pieces[i] for i in dictionary.encode(text)]
  assert [windows.decode([i]) for i in windows.encode(text)][:-1] == pieces[:-1]
  exact = parse.exact_unigram(dictionary, source)
  assert exact.nats_per_char >= source.entropy_rate


def test_no_codec_beats_the_entropy_rate_and_what_is_uniform_is_above_the_unigram(smoke):
  for kind in ('numbered,d=4096', 'lzw,d=4096'):  # computed exactly
    value = lambda column, row=f'k=1,tokenizer={kind}': smoke['markov', row, column].measured
    assert value('exact_unigram_nats_per_char') < value('uniform_nats_per_char')
    assert value('above_entropy_rate_nats_per_char') > 0
  # Nearly all of 2 × 2,000 characters in streams of 200 is coded as the source says: a stream
  # loses the mark of its end and some bits of filling, an eighth of its bits.
  ac = lambda column: smoke['markov', 'k=1,tokenizer=ac,d=256', column].measured
  assert 1 < ac('uniform_nats_per_char') / ac('entropy_rate_nats_per_char') < 1.25


@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_is_well_formed(scale):
  config = matrix.get_config(scale)
  if config.data.source.startswith('tfds'):
    config.data.source = 'stdlib'
  recipe.check(config)
  json.loads(config.to_json_best_effort())
  tokenizer = Dictionary([bytes([byte]) for byte in range(256)])
  for embedding in ('learned', 'lexinvariant', 'random', 'code'):
    models.make(config, tokenizer, embedding)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('grid.tokenizers', ('bytes', 'lossy'), "grid.tokenizers: 'lossy' is none of bytes"),
    ('grid.tokenizers', (), 'grid.tokenizers must name at least one'),
    ('grid.tokenizers', ('numbered10',), 'numbered10 has no tokens of tokenizers.token_bits = 12'),
    ('grid.embeddings', ('learnt',), "grid.embeddings: 'learnt' is not one of learned"),
    ('grid.dim', 18, 'grid.dim 18 is no even multiple of 2 heads'),
    ('grid.teraflops', 0.0, 'grid.teraflops must be above 0'),
    ('markov.bits', (13,), 'markov.bits 13 is not one of 12, 16'),
    ('seed', -1, 'seed must be 0 or more'),
  ],
)
def test_what_cannot_be_run_is_named(field, value, message):
  config = matrix.get_config('smoke')
  config.update_from_flattened_dict({field: value})
  with pytest.raises(InputError, match=message):
    recipe.check(config)
