# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours of tokens by form, and of words by word class (`lib.evals.nearest`).

The class of a word cannot be seen in its letters. Hidden states are compared with three baselines
that have the form and no learned meaning.
"""

import functools
import io
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import fit, recipe
from experiments.recipe import Pictures, Run
from experiments.visual_unicode import loss, models, text
from lib import stats
from lib.evals import nearest
from lib.evals.nearest import NEAREST, Words
from lib.glyphs import row_kinds
from lib.glyphs.pixel_rows import unit
from lib.language_model import TrainedModel
from lib.models.decoder import LanguageModel
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, Rows

MAPS = 'neighbours.npz'  # in the workdir, for the pictures
WORDS = 'seeds×words'
BASELINES = ('rows', 'noise', 'untrained')  # of the hidden states: form without learned meaning


def check(config: ConfigDict) -> None:
  """Raises InputError for invalid arms and counts, and as `loss` does."""
  loss.check(config)
  models.check_arms(config.neighbours.arms, 'neighbours.arms')


def measure(config: ConfigDict, run: Run) -> list[Row]:
  """Neighbours in the spaces of every arm; keeps a map of the first seed's for the picture."""
  opened, options = text.open_text(config), config.neighbours
  batches = opened.held_out(config.loss, 'test').batches
  ids = nearest.frequent(batches, opened.tokenizer.vocab_size, options.tokens)
  written = [(opened.tokenizer.token_bytes(i) or b'').decode('utf-8', 'replace') for i in ids]
  drawn = row_kinds.glyph(opened.glyphs, config.loss.dim)[ids]
  alike = unit(drawn) @ unit(drawn).T
  rows = text.rows(config, 'neighbours')
  for column, value in nearest.chance(alike, written).items():
    rows.add({'space': 'chance'}, column, value, _unit(column))
  maps = {'glyph rows': nearest.plane(drawn)}
  judged = lambda several: [nearest.judge(one, alike, written) for one in several]
  _add_space(rows, {'space': 'glyph_rows'}, judged([drawn]))
  words = nearest.known_words(opened.tokenizer, batches, options.occurrences)
  enough, random = len(words.written) > NEAREST, {'space': 'chance', 'of': 'words'}
  if enough:
    rows.add(random, 'same_word_class', words.chance, 'ratio', about(words))
  else:
    why = 'too few words of the closed classes are one token and occur often enough'
    rows.add(random, 'same_word_class', None, note=f'not measured: {why}')
  for arm in options.arms:
    label = models.ARMS[arm].label
    trained = [one.model for one in loss.train(config, run, arm)]
    tables = [np.asarray(one.embedding_tables().input, np.float32) for one in trained]
    if not models.ARMS[arm].frozen:
      _add_space(rows, {'space': 'rows', 'arm': arm}, judged([table[ids] for table in tables]))
      maps[f'{label}: rows'] = nearest.plane(tables[0][ids])
    states = [nearest.token_states(batches, ids, hidden(one)) for one in trained]
    _add_space(rows, {'space': 'hidden', 'arm': arm}, judged(states))
    maps[f'{label}: hidden states'] = nearest.plane(states[0])
    if enough:
      model = models.make_model(config, config.loss, arm, opened.glyphs)
      seeds = fit.seeds(config, config.loss)
      before = fit.untrained(model, batches[0], seeds, config.loss.length, opened.tokenizer)
      after, untrained = (
        [nearest.word_states(opened.tokenizer, batches, words, hidden(one)) for one in several]
        for several in (trained, before)
      )
      add_words(rows, arm, words, after, [table[words.ids] for table in tables], untrained)
  kept = io.BytesIO()
  np.savez(kept, allow_pickle=False, tokens=np.array(written), **maps)
  run.keep(MAPS, kept.getvalue())
  return rows


def hidden(model: TrainedModel) -> nearest.Hidden:
  """Batch -> final hidden vectors [B, T, D]."""
  return functools.partial(_hidden(model.module), model.variables)


@functools.cache
def _hidden(module: LanguageModel) -> jax.stages.Wrapped:
  # The arms draw nothing at random.
  return jax.jit(lambda variables, batch: module.apply(variables, batch, None, method='hidden')[0])


def _unit(column: str) -> str:
  return 'cosine' if column == 'alike' else 'ratio'


def _add_space(
  rows: Rows, where: Mapping[str, str], found: Sequence[Mapping[str, np.ndarray]]
) -> None:
  """Means over seeds and tokens; one space without seeds has its error over tokens."""
  for column in found[0]:
    values = np.stack([one[column] for one in found])
    single = len(values) == 1
    estimate = stats.mean(values[0], 'tokens') if single else stats.crossed(values, 'seeds×tokens')
    rows.add(where, column, estimate, _unit(column))


def add_words(
  rows: Rows,
  arm: str,
  words: Words,
  states: Sequence[np.ndarray],
  tables: Sequence[np.ndarray],
  untrained: Sequence[np.ndarray],
) -> None:
  """Word classes in each space, and hidden states less each baseline, paired by seed and word."""
  pairs = list(zip(tables, states, strict=True))
  to_rows = [nearest.similarity(*pair) for pair in pairs]
  noise = [nearest.noisy(table, to_rows[seed], seed) for seed, table in enumerate(tables)]
  found = {
    space: np.stack([words.agreement(vectors) for vectors in several])
    for space, several in zip(('hidden', *BASELINES), (states, tables, noise, untrained))
  }
  for space, values in found.items():
    where = {'space': space, 'arm': arm, 'of': 'words'}
    rows.add(where, 'same_word_class', stats.crossed(values, WORDS), 'ratio', about(words))
  for space in BASELINES:
    difference = stats.crossed(found['hidden'] - found[space], WORDS)
    where = {'space': 'hidden', 'arm': arm, 'against': space}
    rows.add(where, 'difference_same_word_class', difference, 'ratio', about(words))
  note = 'of the cosines of all pairs of words'
  where = {'space': 'hidden', 'arm': arm, 'of': 'words'}
  rows.add(where, 'similarity_to_rows', stats.mean(to_rows), 'correlation', note)


def about(words: Words) -> str:
  """How many words there are, for a note."""
  return f'{len(words.written)} words of {len(set(words.classes.tolist()))} classes'


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Tokens in the plane of two principal components, in each space."""
  with np.load(run.workdir / MAPS) as maps:
    written = [repr(str(token))[1:-1].replace(' ', '␣') for token in maps['tokens']]
    axes = 'first principal component', 'second principal component'
    titles = [title for title in maps.files if title != 'tokens']
    panels = [plots.words(title, maps[title], written, *axes) for title in titles]
  caption = (
    'Frequent tokens in the plane of the two principal components of each space. Dots without a '
    'word are tokens whose words would cover others.'
  )
  return {'neighbours.png': Picture(caption, panels)}


TABLE = recipe.Table(
  'neighbours',
  measure,
  caption='The nearest neighbour (cosine) of each frequent token: among input rows, and among '
  'mean final hidden states after the token. `alike` is the cosine of the two pictures; '
  '`same_form` the share of neighbours of the same Unicode categories, `case_pair` of letters '
  'that have their other case there and find it; `chance` takes neighbours at random. '
  '`same_word_class`: for each word of the closed word classes (English function words, numerals, '
  'Python keywords) that is one token, the share of its nearest neighbours of its own class, '
  'among lower-case words whose lengths differ by at most one. Its `hidden` states are those that '
  'predict the next word, `noise` is the rows with Gaussian noise that takes their cosines as far '
  'from the rows’ as those of the hidden states are (equal correlation), `untrained` the hidden '
  'states of the same model before training.',
  shown=('alike', 'same_form', 'case_pair', 'same_word_class', 'difference_same_word_class'),
  check=check,
  pictures=pictures,
  sources=recipe.text_of,
)
