# SPDX-License-Identifier: Apache-2.0
"""Letters that were never read: glyphs are known, trained rows are where they began.

An LM head cannot write a letter that it was never trained on, for any input. So letters are only
read here, and the target is Latin: the names of the letters (`lib.glyphs.letter_names`).

Where texts in other scripts are given, the models of `loss` are scored on them as well.
"""

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import fit, recipe
from experiments.recipe import Pictures, Run, naming
from experiments.visual_unicode import loss, models, text
from experiments.visual_unicode.text import Text
from lib import stats
from lib.data import sources, token_excerpts
from lib.data.token_excerpts import HeldOut
from lib.errors import InputError
from lib.glyphs import letter_names
from lib.language_model import TrainedModel
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, Rows, select
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.restricted import Restricted
from lib.tokenizers.unicode import Unicode

AT_ONCE = 64  # lines that are scored at once
OVER = 'seeds×letters'
DIFFERENCE = 'below 0: better than the reference; paired by seed and letter'


def check(config: ConfigDict) -> None:
  """Raises InputError for scripts or models that cannot be had."""
  options = config.unseen_script
  models.check(options, 'unseen_script')
  text.check(config)
  for _, source in options.texts:
    if not source.startswith('tfds:'):  # a set that is not prepared is not measured
      with naming('unseen_script.texts'):
        sources.open_source(source, 'test')
  for script in (*options.trained, *options.tested):
    if not letters(config.glyphs.font, script):
      raise InputError(
        f'unseen_script.trained and tested: the font has no letters of the script {script!r}; '
        'scripts are the first word of Unicode names, such as LATIN, CYRILLIC or ARMENIAN.'
      )
  shares = options.held_out, options.validation
  if sum(shares) >= 1:
    raise InputError(
      'unseen_script.held_out and unseen_script.validation must be below 1 together; '
      f'got {shares[0]} and {shares[1]}.'
    )
  if both := set(options.trained) & set(options.tested):
    raise InputError(f'unseen_script: {min(both)} is both trained and tested: choose one.')


@functools.cache
def letters(font: str, script: str) -> list[str]:
  """The letters of a script in a font."""
  return letter_names.letters(text.find_font(font), script)


def split(config: ConfigDict) -> tuple[list[str], list[str], dict[tuple[str, str], list[str]]]:
  """Letters to train on, to validate on, and to test on by (script, whether they were seen)."""
  options, font = config.unseen_script, config.glyphs.font
  parts = [
    letter_names.split(letters(font, script), options.held_out, options.validation)
    for script in options.trained
  ]
  seen, validation, unseen = (list(itertools.chain(*part)) for part in zip(*parts))
  groups = {
    ('trained', 'seen'): seen[:: max(1, len(seen) // 256)],
    ('trained', 'unseen'): unseen,
  }
  for script in options.tested:
    groups[script.lower(), 'unseen'] = letters(font, script)
  return seen, validation, groups


def measure(config: ConfigDict, run: Run) -> list[Row]:
  """Trains every arm on names, and scores it on each group of letters."""
  options, rows = config.unseen_script, Rows('unseen_script')
  seen, validation, groups = split(config)
  every = [*seen, *validation, *(letter for group in groups.values() for letter in group)]
  tokenizer = Restricted(Unicode(), [ord(letter) for letter in every])
  opened = Text('names', tokenizer, text.render_tokens(config, tokenizer))
  lines, validated = (
    letter_names.rows(tokenizer, some, options.length) for some in (seen, validation)
  )
  batches = functools.partial(letter_names.batches, lines, options.batch_size)
  bits: dict[tuple[str, str], dict[str, np.ndarray]] = {group: {} for group in groups}
  for arm in options.arms:
    trained = models.train(
      config, run, options, 'unseen_script', arm, opened, batches, [validated], ''
    )
    fit.add_rate(rows, {'arm': arm}, options, trained[0].rate)
    for group, members in groups.items():
      names = asked(tokenizer, members, options.length)
      bits[group][arm] = names.bits([names.sums(one.model.row_loss) for one in trained])
      tokens = stats.by_group(names.sums(lambda batch: batch['scored']), names.units)
      right = np.stack([names.sums(hits(one.model)) for one in trained])
      accuracy = stats.contributions(stats.by_group(right, names.units), tokens)
      where = {'script': group[0], 'letters': group[1], 'arm': arm}
      note = f'{len(members)} characters'
      rows.add(where, 'bits_per_byte', stats.crossed(bits[group][arm], OVER), 'bits/byte', note)
      rows.add(where, 'accuracy', stats.crossed(accuracy, OVER), 'ratio')
  for (script, seen_before), by_arm in bits.items():
    for where, found in models.differences(by_arm, options.references, OVER):
      where = {'script': script, 'letters': seen_before} | where
      rows.add(where, 'difference_bits_per_byte', found, 'bits/byte', DIFFERENCE)
  return rows + texts(config, run)


def asked(tokenizer: Tokenizer, members: Sequence[str], length: int) -> HeldOut:
  """Lines of which only the names are scored."""
  lines = letter_names.rows(tokenizer, members, length)
  scored = lines | {'scored': (lines['bytes'] > 0).astype(np.int32)}
  return token_excerpts.of_rows(
    scored, AT_ONCE, [letter_names.without_case(one) for one in members]
  )


def hits(model: TrainedModel):
  """Batch -> which targets [B, T] are the most probable."""
  return lambda batch: model.logits(batch['inputs']).argmax(axis=-1) == batch['targets']


def texts(config: ConfigDict, run: Run) -> list[Row]:
  """Text of other scripts under the models of `loss`, or why there is no such number."""
  options, rows = config.unseen_script, Rows('unseen_script')
  for language, source in options.texts:
    for arm in options.arms:
      found, note = None, 'the LM head never wrote this script: both ends are tested'
      try:
        if config.tokenizer.kind != 'unicode':
          raise InputError('only tokenizer.kind unicode has rows for every script')
        sources.open_source(source, 'test')
      except InputError as error:
        note = f'not measured: {error}'
      else:
        opened = text.open_text(config)._replace(source=source)
        test = opened.held_out(config.loss, 'test')
        trained = loss.train(config, run, arm)
        found = stats.crossed(test.bits([test.sums(one.model.row_loss) for one in trained]))
      unit = 'bits/byte' if found else ''
      rows.add({'text': language, 'arm': arm}, 'bits_per_byte', found, unit, note)
  if not options.texts:
    why = 'no text is named: give unseen_script.texts as (language, source) pairs'
    rows.add({'text': 'none'}, 'bits_per_byte', None, note=f'not measured: {why}')
  return rows


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Bits per byte and accuracy of names by group of letters."""
  panels = []
  for column, title, label in (
    ('bits_per_byte', 'Cost of the names of letters', 'bits per byte'),
    ('accuracy', 'Characters of the names that are right', 'share'),
  ):
    series: dict[str, dict[str, Row]] = {}
    for row in select(rows, 'unseen_script', column):
      if 'script' in row.where:
        group = f'{row.where["script"]}\n{row.where["letters"]}'
        series.setdefault(models.ARMS[row.where['arm']].label, {})[group] = row
    if series:
      groups = list(next(iter(series.values())))
      by_arm = {arm: [of[group] for group in groups] for arm, of in series.items()}
      panels.append(plots.row_bars(title, label, groups, by_arm, {}))
  caption = (
    'Naming letters of scripts that were seen or never read, over several kinds of rows. Bars: '
    'one standard error over seeds and letters.'
  )
  return {'unseen_script.png': Picture(caption, panels)}


TABLE = recipe.Table(
  'unseen_script',
  measure,
  caption='Trained to name the letters of some scripts, asked for the names of letters that were '
  'never read: bits per byte of the names (the letter itself does not count), and the share of '
  'their characters that are the most probable ones. The units are seeds × letters, of which the '
  'capital and the small form are one. `letters=unseen` are of trained scripts. Frozen random '
  'rows are the baseline that ignores form: they carry no information on an unseen letter. Rows '
  'with `text=` are text of another script, read by the models of `loss`. Each arm has its own '
  '`learning_rate`, chosen by letters of the trained scripts that are in no other group, with one '
  'seed and a share of the steps.',
  shown=('bits_per_byte', 'accuracy', 'learning_rate', 'difference_bits_per_byte'),
  check=check,
  pictures=pictures,
  sources=recipe.text_of,
)
