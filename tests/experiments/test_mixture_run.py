# SPDX-License-Identifier: Apache-2.0
"""The recipe of data mixture inference: a smoke run, its claims, tokenizers of one's own."""

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from configs import common, mixture
from experiments.mixture.recipe import RECIPE
from experiments.recipe import Run
from lib.data import categories
from lib.errors import InputError
from lib.report import plots
from lib.report.results import select
from lib.tokenizers import registry
from tests.helpers import addresses

SIZE = 150_000


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
  """Folders of two categories and of three; text that has 80 % and 20 % of the first two."""
  folder = tmp_path_factory.mktemp('texts')
  known = categories.open_categories('stdlib')
  first, second = categories.halves(known, 0, SIZE, SIZE)
  for place, names in (('two', ['docstrings', 'names']), ('three', [*known][:3])):
    (folder / place).mkdir()
    for name in names:
      (folder / place / f'{name}.txt').write_bytes(b''.join(second[name]))
  training = [
    *categories.take(first['docstrings'], SIZE * 8 // 10),
    *categories.take(first['names'], SIZE * 2 // 10),
  ]
  return folder, training


def hugging_face(training, path):
  one = tokenizers.Tokenizer(models.BPE())
  one.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
  one.train_from_iterator([text.decode('utf-8', 'replace') for text in training], trainer)
  one.save(str(path))


@pytest.fixture(scope='module')
def smoke(texts, tmp_path_factory):
  folder, training = texts
  run = Run(tmp_path_factory.mktemp('mixture'), None)
  config = mixture.get_config('smoke')
  file = run.workdir / 'tokenizer.json'
  hugging_face(training, file)
  config.languages.texts = str(folder / 'three')
  config.off_the_shelf.texts = str(folder / 'two')
  config.off_the_shelf.tokenizer = str(file)
  config.off_the_shelf.merges = 300
  RECIPE.check(config)
  rows = [row for table in RECIPE.chosen(config) for row in table.measure(config, run)]
  return rows, config, run


def test_claims_and_published_numbers_address_rows_of_a_run(smoke):
  assert not addresses.faults('mixture', smoke[0])


def test_the_laws_of_the_program_hold_on_real_text(smoke):
  of = lambda column, sample: select(smoke[0], 'exact', column, sample=sample)[0].measured
  assert of('objective_at_truth', 'training') == of('objective_found', 'training') == 0
  assert of('conservation_error', 'training') == 0
  assert of('objective_found', 'disjoint') > 0.001
  for column in ('lazy_minus_full', 'permutation_difference', 'duplication_difference'):
    assert abs(of(column, 'disjoint')) <= 1e-7, column
  assert abs(of('lazy_minus_full', 'disjoint')) <= 1e-9
  assert of('sum_difference', 'a category twice') <= 1e-6
  assert of('undetermined', 'a category twice') == pytest.approx(1, abs=1e-6)


def test_a_tokenizer_of_ones_own_is_found_out(smoke):
  of = lambda column, name: select(smoke[0], 'off_the_shelf', column, category=name)[0].measured
  assert of('share', 'docstrings') == pytest.approx(0.8, abs=0.1)
  assert of('share', 'names') == pytest.approx(0.2, abs=0.1)
  for name in ('docstrings', 'names'):
    assert 0 <= of('share_low', name) <= of('share', name) + 1e-9
    assert of('share', name) - 1e-9 <= of('share_high', name) <= 1


def test_every_table_has_a_picture_or_none(smoke, tmp_path):
  rows, config, run = smoke
  drawn = [
    name
    for table in RECIPE.chosen(config)
    for name in plots.save(tmp_path, table.pictures(rows, config, run))
  ]
  assert drawn == ['domains.png', 'languages.png', 'off_the_shelf.png']


@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_builds(scale):
  config = mixture.get_config(scale)
  RECIPE.check(config)
  assert config.domains.interval_merges <= max(config.domains.merges)


def test_without_texts_languages_and_tokenizers_are_not_run(smoke):
  config = mixture.get_config('smoke')
  for table in RECIPE.tables[2:]:
    assert not table.measure(config, smoke[2])


def test_halves_share_no_text_and_every_category_is_in_both():
  rng = np.random.default_rng(0)
  shared, own = b'shared ' * 50, lambda: bytes(rng.integers(97, 123, 4000).tolist())
  known = {name: [own() + shared, own(), own() + shared + own()] for name in 'ab'}
  first, second = categories.halves(known, 0, 10_000, 10_000)
  assert set(first) == set(second) == {'a', 'b'}
  held, train = (b'\0'.join(t for part in half.values() for t in part) for half in (second, first))
  windows = {held[i : i + 100] for i in range(len(held) - 99)}
  assert not any(train[i : i + 100] in windows for i in range(len(train) - 99))


def test_mistakes_are_named_before_anything_is_measured(texts, tmp_path):
  folder, _ = texts
  registry.save(registry.train('bytes', [b'a'], 256), tmp_path / 'bytes')
  (tmp_path / 'one').mkdir()
  (tmp_path / 'one/only.txt').write_bytes(b'text ' * 500)
  for field, value, message in (
    ('off_the_shelf.tokenizer', str(tmp_path / 'bytes'), 'give both'),
    ('languages.texts', str(tmp_path / 'one'), 'two or more are needed'),
    ('languages.texts', str(tmp_path / 'nothing'), 'is not a folder'),
    ('domains.interval_merges', 1000, 'at most the largest of domains.merges, 60'),
    ('tokenizer.rule', 'letters', "rule 'letters' is not a pretokenizer"),
    ('data.source', 'stdlib/prose', 'is not a folder'),
  ):
    config = mixture.get_config('smoke')
    config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=message):
      RECIPE.check(config)
  config = mixture.get_config('smoke')
  config.off_the_shelf.update(tokenizer=str(tmp_path / 'bytes'), texts=str(folder / 'two'))
  with pytest.raises(InputError, match='has no merges: give one of BPE'):
    RECIPE.check(config)
  assert np.all([not path.name.endswith('.json') for path in tmp_path.iterdir()])
