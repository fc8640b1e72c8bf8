# SPDX-License-Identifier: Apache-2.0
"""Letters that were never read: glyphs are known, trained rows are where they began.

A readout that never saw a letter cannot write it, whatever the input is. So letters are
only read here, and what is asked for is Latin: every line of the corpus is a letter and its Unicode
name without the script's name, such as `Ё capital letter io`. It comes with every Python.

Where texts in other scripts are given, the models of `loss` are scored on them as well.
"""

import functools
import math
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import loss, models, scores, text
from lib import stats
from lib.data import fonts, pipeline, sources
from lib.data.look_alikes import LETTERS
from lib.errors import InputError
from lib.report.results import Row, name
from lib.tokenizers import Restricted, Unicode
from lib.train.experiment import Variables

CAPTION = (
  'Trained to name the letters of some scripts, asked for the names of letters that were never '
  'read: bits per byte of the names (the letter itself does not count), and the share of their '
  'characters that are the most probable ones. The units are seeds × letters, of which the capital '
  'and the small form are one. `letters=unseen` are of trained scripts. Frozen random rows are the '
  'baseline that ignores form: they say nothing of a letter that was not read. Rows with `text=` '
  'are text of another script, read by the models of `loss`. Each arm has its own `learning_rate`, '
  'chosen by letters of the trained scripts that are in no other group, with one seed and a share '
  'of the steps.'
)
SUMMARY = ('', ('bits_per_byte', 'accuracy', 'learning_rate', 'difference_bits_per_byte'))
AT_ONCE = 64  # lines that are scored at once
OVER = 'seeds×letters'
DIFFERENCE = 'below 0: better than the reference; paired by seed and letter'


def check(config: ConfigDict) -> None:
  """Raises InputError for scripts or models that cannot be had."""
  options = config.unseen_script
  models.check(options, 'unseen_script')
  text.check(config)
  for script in (*options.trained, *options.tested):
    if not letters(config.glyphs.font, script):
      raise InputError(
        f'unseen_script: the font has no letters of the script {script!r}; scripts are the first '
        'word of Unicode names, such as LATIN, CYRILLIC or ARMENIAN.'
      )
  shares = options.held_out, options.validation
  if min(shares) <= 0 or sum(shares) >= 1:
    raise InputError(
      'unseen_script.held_out and unseen_script.validation must be above 0 and below 1 together; '
      f'got {shares[0]} and {shares[1]}.'
    )
  if both := set(options.trained) & set(options.tested):
    raise InputError(f'unseen_script: {min(both)} is both trained and tested: choose one.')


@functools.cache
def letters(font: str, script: str) -> list[str]:
  """Letters of the Basic Multilingual Plane whose name begins with the script, in a font."""
  found = [
    point
    for point in range(0xFFFF)
    if unicodedata.category(chr(point)) in LETTERS
    and unicodedata.name(chr(point), '').startswith(f'{script} ')
  ]
  known = text.find_font(font).draw(np.array(found, np.int64), fonts.CELLS[0])[1]
  return [chr(point) for point in np.array(found)[known]]


def line(letter: str) -> bytes:
  """A document: a letter and its name less the script."""
  return f'{letter} {unicodedata.name(letter).partition(" ")[2].lower()}\n'.encode()


def split(config: ConfigDict) -> tuple[list[str], list[str], dict[str, list[str]]]:
  """Letters to train on, to validate on, and to test on by the name of their group."""
  options, font = config.unseen_script, config.glyphs.font
  seen, validation, unseen = [], [], []
  for script in options.trained:
    found = letters(font, script)
    order = np.random.default_rng(0).permutation(len(found))
    held_out = int(options.held_out * len(found))
    first = held_out + math.ceil(options.validation * len(found))
    unseen += [found[i] for i in order[:held_out]]
    validation += [found[i] for i in order[held_out:first]]
    seen += [found[i] for i in order[first:]]
  groups = {name(script='trained', letters='seen'): seen[:: max(1, len(seen) // 256)]}
  groups |= {name(script='trained', letters='unseen'): unseen}
  return (
    seen,
    validation,
    groups
    | {
      name(script=script.lower(), letters='unseen'): letters(font, script)
      for script in options.tested
    },
  )


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Trains every arm on names, and scores it on each group of letters."""
  options = config.unseen_script
  seen, validation, groups = split(config)
  every = [*seen, *validation, *(letter for group in groups.values() for letter in group)]
  tokenizer = Restricted(Unicode(), [ord(letter) for letter in every])
  glyphs = text.draw(config, tokenizer)
  lines = names(tokenizer, seen, options.length)
  rows: list[Row] = []
  bits: dict[str, dict[str, np.ndarray]] = {group: {} for group in groups}
  for arm in options.arms:
    trained = models.fit(
      config, run, options, 'unseen_script', arm, glyphs,
      lambda seed: batches(lines, options.batch_size, seed),
      [names(tokenizer, validation, options.length)],
    )  # fmt: skip
    rate = trained[0].rate
    rows.append(Row('unseen_script', name(arm=arm), 'learning_rate', rate, note='at its peak'))
    score = scorer(trained[0].model)
    for group, members in groups.items():
      batch = names(tokenizer, members, options.length)
      sums = np.stack([score(one.variables, batch) for one in trained])  # [S, N, 4]
      units = [letter_name(letter) for letter in members]
      nats, right, covered, tokens = stats.by_group(np.moveaxis(sums, -1, 0), units)
      bits[group][arm] = stats.contributions(nats, covered) / np.log(2)
      row = f'{group},{name(arm=arm)}'
      rows += [
        Row.of('unseen_script', row, 'bits_per_byte', stats.crossed(bits[group][arm], OVER),
               unit='bits/byte', note=f'{len(members)} characters'),
        Row.of('unseen_script', row, 'accuracy',
               stats.crossed(stats.contributions(right, tokens), OVER), unit='ratio'),
      ]  # fmt: skip
  for reference in options.references:
    for group, by_arm in bits.items():
      if reference in by_arm:
        for arm, found in stats.arms(by_arm, reference, OVER).items():
          rows.append(
            Row.of('unseen_script', f'{group},{name(arm=arm, against=reference)}',
                   'difference_bits_per_byte', found, unit='bits/byte', note=DIFFERENCE)
          )  # fmt: skip
  return rows + texts(config, run)


def letter_name(letter: str) -> str:
  """The name without the case: the capital and the small form of a letter are one unit."""
  words = unicodedata.name(letter).split()
  return ' '.join(word for word in words if word not in ('CAPITAL', 'SMALL'))


def names(tokenizer: Restricted, members: Sequence[str], length: int) -> dict[str, np.ndarray]:
  """Lines as rows of at most `length` tokens; `bytes` is 0 for the letters themselves."""
  batch = {field: np.zeros((len(members), length), np.int32) for field in pipeline.FIELDS}
  for i, letter in enumerate(members):
    ids = tokenizer.encode(line(letter))[:length]
    batch['targets'][i, : ids.size] = ids
    batch['inputs'][i, : ids.size] = [tokenizer.vocab_size, *ids[:-1]]
    batch['segments'][i, : ids.size] = 1
    batch['positions'][i, : ids.size] = np.arange(ids.size)
    batch['bytes'][i, 1 : ids.size] = tokenizer.byte_lengths(ids[1:])
  return batch


def batches(lines: dict[str, np.ndarray], batch_size: int, seed: int) -> grain.IterDataset:
  """Random lines without end."""

  def draw(step: int) -> dict[str, np.ndarray]:
    drawn = np.random.default_rng((seed, int(step))).integers(len(lines['inputs']), size=batch_size)
    return {field: values[drawn] for field, values in lines.items()}

  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
  return grain.MapDataset.range(2**31).map(draw).to_iter_dataset(options)


def scorer(model: Any) -> Callable[[Variables, dict[str, np.ndarray]], np.ndarray]:
  """(variables, N lines) -> [N, 4]: nats, right characters, bytes and tokens that count."""

  @jax.jit
  def sums(variables, batch):
    logits = model.apply(variables, batch, None, method='logits')
    counts = batch['bytes'] > 0
    right = logits.argmax(axis=-1) == batch['targets']
    said = jnp.take_along_axis(jax.nn.log_softmax(logits), batch['targets'][..., None], axis=-1)
    total = lambda values: jnp.where(counts, values, 0).sum(axis=-1)
    parts = (total(-said[..., 0]), total(right), batch['bytes'].sum(axis=-1), counts.sum(axis=-1))
    return jnp.stack(parts, axis=-1)

  def score(variables, lines):
    count = len(lines['bytes'])
    padding = [(0, -count % AT_ONCE), (0, 0)]
    filled = {field: np.pad(values, padding) for field, values in lines.items()}
    parts = [
      np.asarray(sums(variables, {f: values[i : i + AT_ONCE] for f, values in filled.items()}))
      for i in range(0, len(filled['bytes']), AT_ONCE)
    ]
    return np.concatenate(parts)[:count]

  return score


def texts(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Text of other scripts under the models of `loss`, or why there is no such number."""
  rows = []
  for language, source in config.unseen_script.texts:
    for arm in config.unseen_script.arms:
      row = name(text=language, arm=arm)
      missing = lambda why, row=row: Row('unseen_script', row, 'bits_per_byte', None, note=why)
      if config.tokenizer.kind != 'unicode':
        rows.append(missing('not measured: only tokenizer.kind unicode has rows for every script'))
        continue
      try:
        sources.open_source(source, 'test')
      except InputError as error:
        rows.append(missing(f'not measured: {error}'))
        continue
      opened = text.open_text(config)._replace(source=source)
      test = text.held_out(opened, config.loss, 'test', config.loss.test)
      trained = loss.fit(config, run, arm)
      score = scores.row_nats(functools.partial(loss.token_nats, trained[0].model))
      bits = scores.bits_by_document([score(one.variables, test) for one in trained], test)
      rows.append(
        Row.of('unseen_script', row, 'bits_per_byte', stats.crossed(bits), unit='bits/byte',
               note='the LM head never wrote this script: both ends are tested')
      )  # fmt: skip
  if not config.unseen_script.texts:
    why = 'no text is named: give unseen_script.texts as (language, source) pairs'
    rows.append(
      Row('unseen_script', 'text=none', 'bits_per_byte', None, note=f'not measured: {why}')
    )
  return rows
