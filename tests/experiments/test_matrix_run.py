# SPDX-License-Identifier: Apache-2.0
"""The grid of tokenizers and embeddings: every cell builds, costs are those by hand, and a run."""

import itertools
import json
import math
import pathlib
from fractions import Fraction

import jax
import numpy as np
import pytest
from matplotlib import figure
from tokenizers import Tokenizer as HuggingFace
from tokenizers import decoders as hf_decoders
from tokenizers import models as hf_models
from tokenizers import pre_tokenizers, trainers

from configs import common, matrix
from experiments import decoders, equal_flops, tokenizer_names
from experiments.coders import BY_M1
from experiments.equal_flops import check, examples
from experiments.matrix import cells, embeddings, grid, tokens
from experiments.matrix.reading import Corpus
from experiments.matrix.recipe import RECIPE
from experiments.recipe import Run
from lib import memory, stats, tokenizers
from lib.compression import coded_text, known_law
from lib.compression.byte_model import ByteModel
from lib.data import sources
from lib.errors import InputError
from lib.objectives.next_token import next_token
from lib.parallel import sharding
from lib.report import claims, plots
from lib.report.results import Row, Rows, select
from lib.tasks.markov import dictionary_loss
from lib.tasks.markov.chains import random_kernel, switching
from lib.tokenizers.base import Dictionary
from lib.tokenizers.blocks import train_blocks
from lib.tokenizers.characters import Characters
from lib.tokenizers.coding import arithmetic
from lib.tokenizers.coding.tabulate import tabulate
from lib.tokenizers.coding.windows import EqualInfo
from tests.helpers import addresses

TOKENIZERS = (*matrix.DICTIONARIES, 'numbered12')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  mesh = sharding.make_mesh({'data': -1}, jax.devices()[:1])
  return Run(tmp_path_factory.mktemp('matrix'), mesh)


@pytest.fixture(scope='module')
def smoke(run):
  """The rows of a run at smoke scale by table, row and column."""
  config = matrix.get_config('smoke')
  RECIPE.check(config)
  rows = [row for table in RECIPE.chosen(config) for row in table.measure(config, run)]
  return {(row.table, row.row, row.column): row for row in rows}


@pytest.fixture(scope='module')
def corpora(run, smoke):
  """The text of the smoke scale as tokens of every tokenizer of the cpu scale."""
  config = matrix.get_config('smoke')
  return {name: Corpus(config, run, name, name, config.grid) for name in TOKENIZERS}


def both_ends(embedding, batch, key):
  draw = embedding.sample_rows(key, batch)
  return embedding.token_loss(embedding.encode(batch['inputs'], draw), batch['targets'], draw)


def test_every_cell_builds_and_those_that_the_run_has_not_step(corpora):
  # BPE under all embeddings and all tokenizers under learned rows are trained in the run or take a
  # step here (random rows and codes are the program of glyphs); of the others the embedding, which
  # is all that differs, is built by shapes.
  config, key, rng = matrix.get_config('smoke'), jax.random.key(0), np.random.default_rng(0)
  stepped = {('bpe', 'lexinvariant'), *((name, 'learned') for name in TOKENIZERS)}
  stepped -= set(itertools.product(config.grid.tokenizers, config.grid.embeddings))
  assert len(stepped) == 8
  for name, kind in itertools.product(TOKENIZERS, embeddings.EMBEDDINGS):
    tokenizer, batch = corpora[name].tokenizer, next(iter(corpora[name].batches(0)))
    model = embeddings.make(config, tokenizer, kind)
    make = lambda model=model, batch=batch: model.embedding.init_with_output(
      key, batch, key, method=both_ends
    )
    nats, variables = jax.eval_shape(make)
    assert nats.shape == batch['targets'].shape
    assert ('frozen' in variables) == (kind in ('glyph', 'random', 'code'))
    if (name, kind) in stepped:
      init_fn, loss_fn = next_token(model)
      small = lambda leaf: rng.normal(scale=0.02, size=leaf.shape).astype(leaf.dtype)
      step = jax.jit(jax.value_and_grad(lambda v, batch, f=loss_fn: f(v, batch, key)[0]))
      shapes = jax.eval_shape(init_fn, key, batch)
      loss, gradient = step(jax.tree.map(small, shapes), batch)
      assert float(loss) == pytest.approx(math.log(tokenizer.vocab_size), rel=0.02)
      assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_tokenizers_meet_the_same_bytes_whole(corpora):
  config = matrix.get_config('smoke')
  for name, corpus in corpora.items():
    assert corpus.test.bytes == corpora['bytes'].test.bytes == corpus.test_bytes.sum(), name
    assert corpus.test_bytes.tolist() == corpora['bytes'].test_bytes.tolist()  # by document
    assert corpus.test_bytes.size > 5
    assert len(corpus.train) == len(corpora['bytes'].train)
    batches = list(corpus.validated(0))
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
  # The decoder: projections of D² four times, an MLP of 8 D² and three norms of D.
  parameters = 4 * 16**2 + 8 * 16**2 + 3 * 16
  forward = 1e6 * corpora['bytes'].mflops(())
  assert forward == pytest.approx(2 * (parameters + 256 * 16) + 4 * 16 * (33 / 2))
  # As the modules declare them, which leave out the norms.
  declared = decoders.flops(decoders.with_rows(corpora['bytes'].decoder, 256), 32)
  assert declared == pytest.approx(forward - 2 * 3 * 16)
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


def chunked(**changes):
  """The smoke scale with a hierarchy in each cell, and one seed."""
  config = matrix.get_config('smoke')
  config.grid.update(decoder='hierarchy', seeds=1, side_by_side=0)
  config.hierarchy.update(changes)
  RECIPE.check(config)
  return config


@pytest.mark.parametrize('cell', [('bytes', 'learned', 'stride'), ('bpe', 'glyph', 'learned')])
def test_a_hierarchy_is_a_decoder_of_the_grid_whose_chunks_are_paid_for(cell, run):
  tokenizer, embedding, router = cell
  config, rows = chunked(router=router, chunk=4), Rows('chunked')
  corpus = Corpus(config, run, tokenizer, tokenizer, config.grid)
  where = grid.where_of(tokenizer, embedding)
  cells.measure(config, run, corpus, rows, where, embedding, {})
  value = {row.column: row.measured for row in rows if 'seed' not in row.where}
  uniform = np.log2(corpus.tokenizer.vocab_size) / corpus.bytes_per_token
  assert value['bits_per_byte'] < 1.05 * uniform
  share, dim = value['chunks_per_token'], config.grid.dim
  assert 0 < share <= config.hierarchy.room
  if router == 'stride':  # examples of 32 bytes are 8 chunks
    assert share == 1 / 4
    assert value['teraflops_off'] == pytest.approx(0, abs=0.6 / corpus.steps)
  # By hand: two networks of 6 D², a router of 2 D², a projection of D² and the LM head; a chunk
  # takes 12 D² and half of the pairs of a row of chunks.
  counts = corpus.test.counts
  size, context = corpus.test_bytes.sum() / counts.sum(), (counts**2).sum() / counts.sum()
  outer = 2 * 6 + 1 + 2 * (router == 'learned')
  token = 2 * dim * (outer * dim + corpus.tokenizer.vocab_size)
  chunk = 2 * 12 * dim**2 + 4 * dim * (math.ceil(share * round(context)) + 1) / 2
  assert value['mflops_per_byte'] == pytest.approx((token + share * chunk) / size / 1e6)


def test_decoders_fit_every_tokenizer_and_embedding(corpora):
  config, key = chunked(), jax.random.key(0)
  for name, kind in itertools.product(('bpe', 'numbered12'), ('learned', 'lexinvariant')):
    batch = next(iter(corpora[name].batches(0)))
    nats, _ = jax.eval_shape(
      embeddings.make(config, corpora[name].tokenizer, kind).init_with_output, key, batch, key
    )
    assert nats.shape == batch['targets'].shape
  for scale, decoder in itertools.product(('gpu', 'paper'), matrix.DECODERS):
    config = matrix.get_config(scale)
    config.grid.decoder = decoder
    spec = cells.train_specs(config)['grid']()
    shapes = jax.eval_shape(spec.experiment.init_fn, key, dict(spec.batch))['params']
    inside = {'transformer': 'blocks', 'hierarchy': 'inner', 'recurrent': 'layers'}
    assert inside[decoder] in shapes['decoder']
  with pytest.raises(InputError, match=r'hierarchy.room must be at least 1 / 3'):
    chunked(room=0.25)


def test_all_cells_are_measured(smoke):
  config = matrix.get_config('smoke')
  for tokenizer, embedding in itertools.product(config.grid.tokenizers, config.grid.embeddings):
    row = f'tokenizer={tokenizer},embedding={embedding}'
    bits = smoke['grid', row, 'bits_per_byte']
    single = [smoke['grid', f'{row},seed={seed}', 'bits_per_byte'].measured for seed in (0, 1)]
    assert bits.measured == pytest.approx(np.mean(single))
    assert bits.over == 'seeds×documents'
    assert bits.n.startswith('2×')
    assert bits.sem > abs(single[0] - single[1]) / 2  # documents are uncertain too
    tokens_row = f'tokenizer={tokenizer}'
    level = smoke['tokenizers', tokens_row, 'uniform_bits_per_byte'].measured
    assert bits.measured < level  # which an untrained model has at best
    unigram = smoke['tokenizers', tokens_row, 'unigram_bits_per_byte']
    gain = smoke['grid', row, 'gain_over_unigram_bits_per_byte']
    assert gain.measured == pytest.approx(unigram.measured - bits.measured)
    if tokenizer == 'bpe':  # over numbered12 the smoke model learns nothing
      assert gain.sem < np.hypot(unigram.sem, bits.sem) / 2  # over the same tokens
    for column in ('bytes_per_token', 'mflops_per_byte', 'tokens_per_second'):
      assert smoke['grid', row, column].measured > 0


def test_tokenizers_are_ranked_by_the_gain_of_learned_rows(smoke):
  names = matrix.get_config('smoke').grid.tokenizers
  row = 'tokenizer={},embedding=learned'
  gain = lambda one: smoke['grid', row.format(one), 'gain_over_unigram_bits_per_byte'].measured
  rank = {one: smoke['tokenizers', f'tokenizer={one}', 'rank_by_gain'].measured for one in names}
  assert sorted(names, key=rank.__getitem__) == sorted(names, key=gain, reverse=True)


def test_lossy_tokenizers_are_not_ranked():
  rng = np.random.default_rng(0)

  def scores(nats, lossless=True):
    bits = rng.normal(nats, 0.1, (2, 5))
    return equal_flops.Scores(bits, 9 - bits, lossless)

  found = {
    ('words', 'learned'): scores(1, lossless=False),
    ('bpe', 'learned'): scores(3),
    ('bytes', 'learned'): scores(2),
  }
  rows = Rows('tokenizers')
  grid.add_ranks(rows, found)
  ranked = {row.row: row.measured for row in rows}
  assert ranked == {'tokenizer=words': None, 'tokenizer=bpe': 2, 'tokenizer=bytes': 1}


def test_a_spread_is_the_standard_deviation_and_its_error_follows_from_the_derivative():
  rng = np.random.default_rng(0)
  arms = rng.normal(size=(4, 3, 50)) + rng.normal(size=(4, 1, 1))
  means = arms.mean(axis=(1, 2))
  found = stats.deviation(arms)
  assert found.mean() == pytest.approx(means.std(ddof=1))
  # One unit counted twice moves the spread as much as its contribution says, to first order.
  for seed, document in ((0, 0), (2, 17)):
    moved = arms.copy()
    moved[:, seed, document] += 1e-4 * arms[:, seed, document]
    change = stats.deviation(moved).mean() - found.mean()
    assert change == pytest.approx(1e-4 * found[seed, document] / found.size, rel=1e-3)


def test_more_compute_is_compared_with_bytes_in_pairs(smoke):
  value = lambda row, column: smoke['budget', row, column]
  gap = value('tokenizer=bpe', 'above_bytes_bits_per_byte')
  bits = [value(f'tokenizer={name}', 'bits_per_byte') for name in ('bpe', 'bytes')]
  assert gap.measured == pytest.approx(bits[0].measured - bits[1].measured)
  assert (gap.n, gap.over) == (bits[0].n, 'seeds×documents')
  config = matrix.get_config('smoke')
  for row in ('tokenizer=bytes', 'tokenizer=bpe'):
    steps = value(row, 'steps').measured
    spent = 1e3 * config.grid.teraflops * config.budget.times
    assert value(row, 'training_gflops').measured == pytest.approx(spent, rel=0.6 / steps)


def test_untried_cells_are_compared_with_their_references(smoke):
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


def test_the_report_uses_only_rows_that_exist(smoke):
  assert addresses.faults('matrix', [*smoke.values()]) == []
  judged = claims.judge_all('matrix', [*smoke.values()], same_sizes=False)
  not_run = {address for one in judged for outcome in one.outcomes for address in outcome.not_run}
  # What the smoke run leaves out: rows drawn anew, windows at more compute, sources of order 3.
  left_out = ('lexinvariant', 'numbered12', 'k=3')
  assert all(any(one in address for one in left_out) for address in not_run)
  assert sum(bool(outcome.comparisons) for one in judged for outcome in one.outcomes) >= 5


def test_pictures_are_drawn_impossible_cells_too(smoke, run):
  config = matrix.get_config('smoke')
  cell = grid.where_of('bpe', 'glyph')
  rows = [row for row in smoke.values() if not cell.items() <= row.where.items()]
  rows.append(Row('grid', cell, 'bits_per_byte', None, note='impossible: for a reason'))
  drawn = []
  for table in RECIPE.tables:
    drawn += plots.save(run.workdir, table.pictures(rows, config, run))
  assert drawn == ['matrix.png', 'pareto.png', 'budget.png', 'markov.png']
  assert all((run.workdir / picture).stat().st_size > 5000 for picture in drawn)


def test_a_cell_that_cannot_be_says_why(run, corpora):
  config = matrix.get_config('smoke')
  config.grid.dim = 24
  rows = Rows('grid')
  assert cells.measure(config, run, corpora['bytes'], rows, {'row': 'here'}, 'code', {}) is None
  [row] = rows
  assert row.measured is None
  assert row.note.startswith('impossible: codes of 16 bits do not fit 256 tokens')


def test_a_tokenizer_file_is_one_of_the_grid(run, tmp_path):
  config = matrix.get_config('smoke')
  path = tmp_path / 'mine.tok'
  tokenizers.save(Characters(), path)
  config.grid.tokenizers = (str(path),)
  RECIPE.check(config)
  assert tokens.make(config, run, str(path)).fingerprint == Characters().fingerprint
  assert tokenizer_names.labels([str(path)]) == {str(path): 'mine'}


def byte_level(text, path):
  """A Hugging Face file of byte-level BPE with 300 ids."""
  made = HuggingFace(hf_models.BPE())
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = hf_decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  made.train_from_iterator([text], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
  path.parent.mkdir(exist_ok=True)
  made.save(str(path))
  return str(path)


def test_files_of_one_name_are_two_rows_and_two_runs(run, tmp_path):
  config = matrix.get_config('smoke')
  one = byte_level('the cat sat on the mat ' * 50, tmp_path / 'a' / 'tokenizer.json')
  two = byte_level('import numpy as np; x = [0] ' * 50, tmp_path / 'b' / 'tokenizer.json')
  built_in = tmp_path / 'bpe.tok'
  tokenizers.save(Characters(), built_in)
  names = (one, two, 'bpe', str(built_in))
  config.grid.tokenizers = names
  RECIPE.check(config)
  labels = tokenizer_names.labels(names)
  assert labels['bpe'] == 'bpe'
  assert len(set(labels.values())) == 4
  for name in (one, two, str(built_in)):
    digits = tokens.make(config, run, name).fingerprint[:6]
    assert labels[name] == f'{pathlib.Path(name).stem}-{digits}'
  # Under the same label too, another tokenizer never takes up the checkpoints of the first.
  runs = {
    equal_flops.run_name('grid', Corpus(config, run, name, 'same', config.grid), 'learned')
    for name in (one, two)
  }
  assert len(runs) == 2
  for again in (one, byte_level('the cat sat on the mat ' * 50, tmp_path / 'c' / 'other.json')):
    config.grid.tokenizers = (one, again)
    with pytest.raises(InputError, match=r'the same tokenizer|names a tokenizer twice'):
      RECIPE.check(config)


def test_lossy_tokenizers_are_marked(run, tmp_path):
  config = matrix.get_config('smoke')
  made = HuggingFace(hf_models.WordLevel({'the': 0, '[UNK]': 1}, unk_token='[UNK]'))
  made.pre_tokenizer = pre_tokenizers.Whitespace()
  path = str(tmp_path / 'words.json')
  made.save(path)
  config.grid.tokenizers = (path,)
  corpus = Corpus(config, run, path, tokenizer_names.labels([path])[path], config.grid)
  rows, others = (
    cells.rows_of('tokenizers', {label: corpus.tokenizer}) for label in ('words', 'bpe')
  )
  grid.add_tokenizer(rows, corpus)
  grid.add_tokenizer(others, corpus)
  [restored] = select(rows, 'tokenizers', 'share_restored')
  assert restored.measured < 1
  assert all(row.row == 'tokenizer=words' and row.lossy for row in rows)
  assert not any(row.lossy for row in others)
  places = {'words†': 1.0, 'bpe': 2.0, 'bytes': 3.0}
  points = {'learned': {name: (x, Row('grid', {}, 'bits', x)) for name, x in places.items()}}
  axis = figure.Figure().subplots()
  plots.trade('', '', '', points, ['words†'])(axis)
  line = next(line for line in axis.get_lines() if line.get_label() == 'the best for less')
  assert line.get_xydata().tolist() == [[2, 2]]


def test_the_cost_of_m1_is_two_flops_a_parameter(run, smoke):
  config = matrix.get_config('smoke')
  size = ByteModel.load(run.workdir / 'm1').parameters
  assert tokens.m1_flops(config, run, 'numbered12') == 2 * size
  assert 'numbered' in BY_M1
  assert tokens.m1_flops(config, run, 'bpe') == 0


def test_blocks_are_cut_two_by_two():
  blocks = train_blocks([b'abababab', b'cd'], 258)
  assert [blocks.pieces[i] for i in blocks.encode(b'ababcde')] == [b'ab', b'ab', b'cd', b'e']
  assert blocks.vocab_size == 258


@pytest.mark.parametrize('source', [switching(0.8, 0.7, 2), random_kernel(1, 3, 0)])
def test_windows_over_the_alphabet_of_a_source_are_the_texts_that_fit(source):
  # All texts whose interval encloses a cell of 2^-9, by exact fractions; they are few enough that
  # none is left out.
  bits, laws = 9, [arithmetic.quantise(law) for law in known_law.laws(source)]
  texts, pending = {}, [((), Fraction(0), Fraction(1))]
  while pending:
    text, low, width = pending.pop()
    before = text[len(text) - min(len(text), source.order) :]
    context = sum(symbol * source.alphabet_size**age for age, symbol in enumerate(before))
    frequencies = [int(part) for part in laws[len(before)][context]]
    for symbol in range(source.alphabet_size):
      start = low + width * Fraction(frequencies[symbol], 2**14)
      wide = width * Fraction(frequencies[symbol + 1] - frequencies[symbol], 2**14)
      if math.ceil(start * 2**bits) + 1 <= (start + wide) * 2**bits:
        longer = (*text, symbol)
        texts[bytes(48 + s for s in longer)] = wide
        pending.append((longer, start, wide))
  kept = sorted(texts, key=lambda text: (len(text) > 1, -texts[text]))[: 2**bits]
  dictionary = known_law.numbered(source, bits)
  assert len(dictionary.pieces) == min(len(texts), 2**bits)
  assert set(dictionary.pieces) <= texts.keys()
  lightest = lambda pieces: min(texts[piece] for piece in pieces if len(piece) > 1)
  assert lightest(dictionary.pieces) == lightest(kept)
  exact = dictionary_loss.exact_unigram(dictionary, source)
  assert exact.nats_per_char >= source.entropy_rate


def test_windows_in_bytes_are_the_dictionary_they_are_taken_for():
  source = switching(0.8, 0.8, 2)
  windows = EqualInfo(tabulate(known_law.Chain(source), 12, 'numbered'), 12)
  dictionary = known_law.byte_windows(source, 12)
  text = source.text(5000, 0)
  pieces = [dictionary.pieces[i] for i in dictionary.encode(text)]
  assert [windows.decode([i]) for i in windows.encode(text)][:-1] == pieces[:-1]


@pytest.mark.parametrize('source', [switching(0.8, 0.7, 2), random_kernel(1, 3, 0)])
def test_packaging_costs_are_those_of_the_byte_coder(source):
  documents = np.stack([source.sample(300, seed) for seed in range(8)]).astype(np.int64)
  found = known_law.code_lengths(source, documents)
  # With frequencies for 256 bytes and an end mark, as the coder of the byte tokenizers has them.
  texts = [bytes(48 + document) for document in documents.astype(np.uint8)]
  lengths = np.arange(documents.shape[1] + 1, dtype=np.int32)
  beginnings = lambda text: np.where(
    np.arange(len(text)) < lengths[:, None], np.frombuffer(text, np.uint8), 0
  ).astype(np.uint8)
  given = (known_law.Chain(source)(beginnings(text), lengths) for text in texts)
  coded = coded_text.code_lengths(given, texts)
  spent = coded.integer.sum() + coded.end.sum()
  whole = found['nats'] - found['rounding'] + found['impossible_symbols'] + found['end_mark']
  assert whole == pytest.approx(spent * math.log(2) / documents.size, rel=1e-4)
  assert 0 <= found['rounding'] < 2 * math.log(2) / 300
  assert found['nats'] == pytest.approx(source.entropy_rate, abs=0.1)


def test_no_codec_beats_the_entropy_rate_and_differences_are_of_the_rows(smoke):
  value = lambda kind, column: smoke['markov', f'k=2,tokenizer={kind}', column].measured
  for kind in ('numbered,d=4096', 'lzw,d=4096'):  # computed exactly
    assert value(kind, 'above_entropy_rate_nats_per_char') > 0
    for other, column in (('bpe,d=4096', 'above_bpe'), ('ac', 'above_ac')):
      gap = value(kind, 'above_entropy_rate_nats_per_char') - value(
        other, 'above_entropy_rate_nats_per_char'
      )
      assert value(kind, f'{column}_nats_per_char') == pytest.approx(gap)
  windows = smoke['markov', 'k=2,tokenizer=numbered,d=4096', 'above_bpe_nats_per_char']
  assert (windows.n, windows.over) == ('2', 'seeds')


def test_text_that_would_be_memorised_is_refused():
  config = matrix.get_config('gpu')
  check(config, config.grid, 'grid', config.tokenizers.vocab_size)
  config.grid.train_bytes = 2**24
  with pytest.raises(InputError, match=r'1.68e\+07 bytes .* read 13.5 times, .* a larger part'):
    check(config, config.grid, 'grid', config.tokenizers.vocab_size)
  config.data.source = 'stdlib/prose'
  with pytest.raises(InputError, match=r"data.source 'stdlib/prose' has .* bytes of training text"):
    check(config, config.grid, 'grid', config.tokenizers.vocab_size)


@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_is_well_formed(scale, monkeypatch):
  monkeypatch.setattr(memory, 'of_host', lambda: 2**42)  # that of a large host
  config = matrix.get_config(scale)
  if config.data.source.startswith('tfds'):
    config.data.source = 'ngram:stdlib,length=8192'
  RECIPE.check(config)
  json.loads(config.to_json_best_effort())
  tokenizer = Dictionary([bytes([byte]) for byte in range(256)])
  for embedding in ('learned', 'lexinvariant', 'random', 'code'):
    embeddings.make(config, tokenizer, embedding)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('grid.tokenizers', ('bytes', 'lossy'), "grid.tokenizers: 'lossy' is not one of"),
    ('grid.tokenizers', (), 'grid.tokenizers must be a tuple of 1 or more'),
    ('grid.tokenizers', ('numbered10',), 'numbered10 has no tokens of tokenizers.token_bits = 12'),
    ('grid.embeddings', ('learnt',), 'grid.embeddings must be .* one of learned'),
    ('grid.decoder', 'rnn', 'grid.decoder must be one of transformer, hierarchy'),
    ('grid.dim', 18, 'grid.dim 18 is not an even multiple of 2 heads'),
    ('grid.teraflops', 0.0, 'grid.teraflops must be above 0'),
    ('budget.times', 0.0, 'budget.times must be above 0'),
    ('data.source', 'ngram:stdlib,length=16', 'is 32 long'),
    ('budget.tokenizers', ('bytes', 'lossy'), "budget.tokenizers: 'lossy' is not one of"),
    ('markov.bits', (13,), 'markov.bits must be .* one of 12, 16'),
    ('seed', -1, 'seed must be 0 or more'),
  ],
)
def test_invalid_configs_are_refused_with_a_sentence(field, value, message):
  config = matrix.get_config('smoke')
  config.update_from_flattened_dict({field: value})
  with pytest.raises(InputError, match=message):
    RECIPE.check(config)


def test_endless_text_has_a_floor_and_cells_a_rate(run):
  config = matrix.get_config('smoke')
  config.data.source = 'ngram:stdlib/prose,length=64'
  config.grid.update(rates=(1e-7, 1e-2), rate_share=0.5, seeds=1, test_bytes=1024)
  corpus = Corpus(config, run, 'bytes', 'bytes', config.grid)
  source = sources.open_source(config.data.source, 'test')
  found = examples(config, config.grid, 'test')
  expected = 0.0
  for index, text in zip(found.documents.tolist(), found.texts, strict=True):
    start = source[index].find(text)  # 32 of 64 bytes: the excerpt stands there once
    expected += source.nats(source[index])[start : start + len(text)].sum()
  assert corpus.law.sum() == pytest.approx(expected)
  rows = Rows('floor')
  scores = cells.measure(config, run, corpus, rows, {'tokenizer': 'bytes'}, 'learned', {})
  by_column = {row.column: row.measured for row in rows if 'seed=' not in row.row}
  assert by_column['learning_rate'] == 1e-2
  equal_flops.add_law(rows, corpus)
  floor = rows[-1]
  regret = by_column['bits_per_byte'] - floor.measured
  assert by_column['regret_bits_per_byte'] == pytest.approx(regret)
  assert regret > 1  # a model that has hardly been trained
  assert scores.lossless
