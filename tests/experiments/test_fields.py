# SPDX-License-Identifier: Apache-2.0
"""Every field of every config refuses what it may not be, by name, before anything is written."""

import importlib
import math
import random
import re

import jax
import pytest

from configs import common
from configs.fields import Field, Scaled, Section, build
from experiments import reproduce
from lib.errors import InputError
from lib.parallel.sharding import make_mesh
from lib.provenance import flat
from lib.tasks.markov import chains
from lib.train import optimizer

RECIPES = tuple(reproduce.MINUTES)
TRIED = {'markov': 20, 'visual_unicode': 3, 'matrix': 20}  # odd values; 5 for all others


def config_of(name, scale='smoke'):
  return importlib.import_module(f'configs.{name}').get_config(scale)


def put(config, path, value):
  """Sets a field to a value of any type, as ml_collections sometimes lets pass."""
  with config.ignore_type():
    config.update_from_flattened_dict({path: value})


def mistakes(value):
  """Values that no field with such a default may have."""
  if isinstance(value, bool):
    return [3, 'yes']
  if isinstance(value, int | float):
    return [math.nan, math.inf, -math.inf, -7, 10**30, 'three', None, (1,)]
  if isinstance(value, str):
    return [3, None, 'zero\0byte', 'x' * 100_000]
  of_other_type = [(None,), ((1, 2, 3, 4, 5, 6, 7),), 3, 'abc', (math.nan,)]
  return of_other_type + [(3,)] * any(isinstance(one, str) for one in value)


@pytest.mark.parametrize('name', RECIPES)
@pytest.mark.parametrize('scale', common.SCALES)
def test_every_scale_is_right_as_it_is(name, scale):
  config_of(name, scale).check()


@pytest.mark.parametrize('name', RECIPES)
def test_every_mistake_in_every_field_is_refused_by_the_name_of_the_field(name):
  config = config_of(name)
  fields = flat(config.to_dict())
  assert fields.keys() == config.declared.keys()
  for path, value in fields.items():
    for mistake in mistakes(value):
      with pytest.raises(InputError, match=f'^{re.escape(path)} must be .{{1,300}}$'):
        config.declared[path].check(path, mistake)
    put(config, path, mistakes(value)[-1])
    with pytest.raises(InputError, match=f'^{re.escape(path)} must be '):
      config.check()
    put(config, path, value)


@pytest.mark.parametrize('name', RECIPES)
def test_what_fields_allow_is_accepted_or_refused_in_a_sentence(name):
  """No value within the bounds of its field ends in a traceback, however odd."""
  recipe = importlib.import_module(f'experiments.{name}.recipe').RECIPE
  odd = {int: (1, 10**6), float: (1e-9, 0.9), str: ('nope', 'x' * 5000), tuple: ((),), bool: ()}
  fields = flat(config_of(name).to_dict())
  every = [(path, one) for path, value in fields.items() for one in odd[type(value)]]
  for path, value in random.Random(0).sample(every, TRIED.get(name, 5)):
    config = config_of(name)
    put(config, path, value)
    said = path
    try:
      recipe.check(config)
    except InputError as error:
      said = str(error)
    assert path.split('.')[-1] in said, f'{path}={value!r}: {said}'


@pytest.mark.parametrize('name', ['optimizer', 'schedule', 'kind'])
def test_choices_are_those_of_the_library(name):
  known = (common.TRAINING | importlib.import_module('configs.markov').SOURCE)[name].choices
  make = {
    'optimizer': lambda one: optimizer.make_optimizer(one, 0.1),
    'schedule': lambda one: optimizer.make_schedule(one, 0.1, 10, 2, 0.1),
    'kind': lambda one: chains.make(1, 0, kind=one, p=0.8, q=0.8, alphabet_size=2, delta=0.5),
  }[name]
  for one in known:
    make(one)
  with pytest.raises(InputError, match=', '.join(sorted(known)[:1])):
    make('nope')


@pytest.mark.parametrize(
  ('field', 'value', 'said'),
  [
    ('accumulate', 3, 'transformer: accumulate=3 does not divide the batch'),
    ('transformer.batch_size', 6, 'transformer: a batch of 6 does not divide among'),
    ('transformer.dim', 2_000_000, r'transformer: [\d,]+ parameters .* GB are free'),
    ('transformer.length', 10**13, 'transformer: no memory is left'),
  ],
)
def test_sizes_beyond_the_devices_are_refused_before_anything_is_made(field, value, said):
  recipe = importlib.import_module('experiments.markov.recipe').RECIPE
  config = config_of('markov', 'smoke,tables=transformer')
  mesh = make_mesh({'data': 4}, jax.devices()[:4])
  recipe.check_sizes(config, mesh)
  put(config, field, value)
  with pytest.raises(InputError, match=said):
    recipe.check_sizes(config, mesh)


@pytest.mark.parametrize(
  ('recipe', 'table', 'field', 'value', 'said'),
  [
    ('markov', 'ngram', 'ngram.train_chars', 10**12, r'ngram.train_chars .* GB of memory are free'),
    ('markov', 'ngram', 'orders', (60,), 'orders: A Markov order must'),
    ('markov', 'blocks', 'blocks.lengths', (40,), r'blocks.lengths must .* got \(40,\)'),
    ('markov', 'token_ngram', 'token_ngram.sequential_texts', 10**6, 'must be at most 10,000'),
    ('markov', 'transformer', 'transformer.seeds', 10**9, 'must be 1,000 or less'),
    ('markov', 'real_text', 'data.source', 'ngram:', "'ngram:' names no text"),
    ('equal_info', 'ratio', 'm1.dim', 10**8, r'^m1: .* GB are free'),
    ('equal_info', 'windows', 'm1.dim', 10**8, r'^m1: .* GB are free'),
    ('matrix', 'grid', 'grid.dim', 10**7, r'^grid: .* GB are free'),
    ('matrix', 'grid', 'tokenizers.vocab_size', 10, 'tokenizers.vocab_size: .* 256 ids or more'),
    ('matrix', 'markov', 'orders', (30,), 'orders: A Markov order must be'),
    ('visual_unicode', 'loss', 'loss.references', ('nope',), "loss.references: 'nope' is not"),
    ('visual_unicode', 'homoglyphs', 'homoglyphs.reference', 'nope', "reference: 'nope' is not"),
    (
      'visual_unicode', 'unseen_script', 'unseen_script.texts', (('russian', '/nowhere'),),
      "unseen_script.texts: no file matches '/nowhere'",
    ),
  ],
)  # fmt: skip
def test_what_no_field_alone_can_know_is_refused_before_anything_is_made(
  recipe, table, field, value, said
):
  config = config_of(recipe, f'smoke,tables={table}')
  put(config, field, value)
  chosen = importlib.import_module(f'experiments.{recipe}.recipe').RECIPE
  mesh = make_mesh({}, jax.devices()[:1])
  with pytest.raises(InputError, match=said):
    [chosen.check(config), chosen.check_sizes(config, mesh)]


def test_endless_text_beyond_memory_is_refused():
  config = config_of('matrix', 'smoke,tables=grid')
  put(config, 'data.source', 'ngram:stdlib/prose')
  put(config, 'grid.train_bytes', 10**12)
  with pytest.raises(InputError, match=r'1,000 GB of the text .* choose a smaller train_bytes'):
    importlib.import_module('experiments.matrix.recipe').RECIPE.check(config)


def test_bounds_stay_with_a_field_whose_default_changes():
  section = Section() | {'share': Field(0.5, least=0, most=1), 'count': 3}
  config = build({'one': section | {'share': Scaled(0.0, 0.1, 0.2, 0.3), 'count': 4}}, 'cpu')
  assert (config.one.share, config.one.count) == (0.1, 4)
  config.check()
  config.one.share = 1.5
  with pytest.raises(InputError, match=r'one.share must be 1 or less; got 1.5\.'):
    config.check()


@pytest.mark.parametrize(
  ('value', 'right', 'wrong'),
  [
    (Scaled((), (('a', 1),), (), ()), [(), (('b', 2), ('c', 3))], [('b', 2), ((1, 'b'),)]),
    (('a', 1), [('b', 2)], [(), ('b',), ('b', 'c'), (2, 'b')]),
    ((0.1, 1), [(1, 2), (0.5,)], [(0.0,), ('a',), (True,)]),
    ((('p', 0.1), ('q',)), [(('q',), ('r', 1))], [((),), (('q', 'r'),), ('q',)]),
  ],
)
def test_tuples_are_lists_or_records(value, right, wrong):
  for one in right:
    Field(value).check('f', one)
  for one in wrong:
    with pytest.raises(InputError, match='f must be'):
      Field(value).check('f', one)
