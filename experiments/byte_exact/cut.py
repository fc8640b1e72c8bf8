# SPDX-License-Identifier: Apache-2.0
"""Table `cut`: prompts that end at any byte, and how the text goes on."""

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments.byte_exact import bias, models
from experiments.recipe import Run, Table, text_of
from lib.decoding.byte_view import ByteTexts
from lib.language_model import TrainedModel, byte_law
from lib.report.results import Rows

FIRST = 16  # bytes of the shortest prompt


def measure(config: ConfigDict, run: Run) -> Rows:
  """Nats of the bytes after a cut, and how often the likeliest bytes are the right ones."""
  options, rows = config.cut, Rows('cut')
  text = models.held_out(config, options.prompt + options.after, options.prompts)
  places = np.random.default_rng(config.seed).integers(FIRST, options.prompt + 1, len(text))
  for name in options.tokenizers:
    trained = models.trained(config, run, name)
    ends = [np.cumsum(loss.bytes) for loss in trained[0].token_loss(text.texts)]
    inside = np.array([place not in one for place, one in zip(places.tolist(), ends, strict=True)])
    found = {
      method: np.array([_one(config, one, text.texts, places, back) for one in trained])
      for method, back in bias.METHODS.items()
    }
    for cut, kept in (('any', inside | True), ('inside', inside), ('edge', ~inside)):
      some = text.where(kept)
      if some.distinct < 2:
        continue
      for method, (nats, right) in ((m, np.moveaxis(v, 1, 0)) for m, v in found.items()):
        where = {'tokenizer': name, 'cut': cut, 'method': method}
        column = f'nats_of_{options.after}_bytes'
        rows.add(where, column, models.estimate(nats[:, kept], some), 'nats')
        less = models.estimate(nats[:, kept] - found['exact'][:, 0][:, kept], some)
        if method != 'exact':
          rows.add(where, 'nats_above_exact', less, 'nats', 'paired by seed and prompt')
        note = f'the likeliest {options.greedy} bytes, one after the other, are the text'
        rows.add(where, 'exact_completions', models.estimate(right[:, kept], some), 'share', note)
    share = models.estimate(inside[None].astype(float), text).value
    rows.add({'tokenizer': name}, 'cuts_inside_a_token', share, 'share of prompts')
  return rows


def _one(
  config: ConfigDict, model: TrainedModel, texts: Sequence[bytes], places: np.ndarray,
  back: int | None,
) -> np.ndarray:  # fmt: skip
  """Nats of the bytes after each cut, and whether the likeliest bytes are right: [2, N]."""
  vocabulary, out = byte_law.vocabulary(model, every=back is not None), []
  beam = None if back is None else config.cut.beam
  for start in range(0, len(texts), byte_law.TEXTS):
    some = texts[start : start + byte_law.TEXTS]
    cuts = places[start : start + byte_law.TEXTS].tolist()
    prompts = [text[:cut] for text, cut in zip(some, cuts, strict=True)]
    after = [text[cut : cut + config.cut.after] for text, cut in zip(some, cuts, strict=True)]
    reader = ByteTexts(vocabulary, byte_law.CachedLaw(model, len(some)), len(some), beam)
    encoded = [loss.ids.tolist() for loss in model.token_loss(prompts)]
    bias.begin(reader, vocabulary, encoded, prompts, back)
    right = np.ones(len(some), bool)
    before = reader.log_probability.copy()
    for at in range(config.cut.after):
      bytes_ = [one[at] for one in after]
      if at < config.cut.greedy:
        right &= reader.next_bytes()[:, :256].argmax(axis=1) == bytes_
      reader.append(range(len(some)), bytes_)
    out.append(np.stack([before - reader.log_probability, right]))
  return np.concatenate(out, axis=1)


def check(config: ConfigDict) -> None:
  """Raises InputError for an invalid table."""
  models.check(config, config.cut.prompt + config.cut.after, 'cut.prompt')


TABLE = Table(
  'cut',
  measure,
  'Prompts from held-out text, cut at a random byte: `inside` a token of the whole text, or at an '
  '`edge` of two. Methods as in `bias`; all but `exact` go on by any tokens from where the kept '
  'tokens of the prompt end, the heaviest `beam` ways to write the bytes. ± is one standard error '
  'over seeds × documents; differences are paired.',
  ('nats_above_exact', 'exact_completions', 'cuts_inside_a_token'),
  check=check,
  train_specs=models.train_specs,
  sources=text_of,
)
