# SPDX-License-Identifier: Apache-2.0
"""Table `cut`: prompts that end at any byte, and their continuations."""

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
  cuts = places.tolist()
  prompts = [one[:place] for one, place in zip(text.texts, cuts, strict=True)]
  after = [one[place : place + options.after] for one, place in zip(text.texts, cuts, strict=True)]
  for name in options.tokenizers:
    trained = models.trained(config, run, name)
    ends = [np.cumsum(loss.bytes) for loss in trained[0].token_loss(text.texts)]
    inside = np.array([place not in one for place, one in zip(places.tolist(), ends, strict=True)])
    found = {
      method: np.array(
        [continuations(one, prompts, after, back, options.beam, options.greedy) for one in trained]
      )
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


def continuations(
  model: TrainedModel, prompts: Sequence[bytes], after: Sequence[bytes], back: int | None,
  beam: int, greedy: int | None = None,
) -> np.ndarray:  # fmt: skip
  """Nats of what comes after each prompt, and whether the likeliest bytes are it: [2, N].

  Args:
    model: that reads the prompts.
    prompts: N texts.
    after: the bytes after each.
    back: how prompts are read, as in `bias.METHODS`.
    beam: the most ways to write a text that are summed, where not all are.
    greedy: bytes that must be the likeliest; None for all.
  """
  vocabulary, out = byte_law.vocabulary(model, every=back is not None), []
  for start in range(0, len(prompts), byte_law.TEXTS):
    some, rest = prompts[start : start + byte_law.TEXTS], after[start : start + byte_law.TEXTS]
    law = byte_law.CachedLaw(model, len(some))
    reader = ByteTexts(vocabulary, law, len(some), None if back is None else beam)
    bias.begin(
      reader, vocabulary, [loss.ids.tolist() for loss in model.token_loss(some)], some, back
    )
    right = np.ones(len(some), bool)
    before = reader.log_probability.copy()
    for at in range(max(map(len, rest))):
      which = [i for i, one in enumerate(rest) if at < len(one)]
      bytes_ = [rest[i][at] for i in which]
      if greedy is None or at < greedy:
        right[which] &= reader.next_bytes()[which, :256].argmax(axis=1) == bytes_
      reader.append(which, bytes_)
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
  'tokens of the prompt end, the heaviest `beam` ways to write the bytes. `exact` sums the '
  'encodings that the tokenizer writes and no others, so it pays for what the model leaks to '
  'these. ± is one standard error over seeds × documents; differences are paired.',
  ('nats_above_exact', 'exact_completions', 'cuts_inside_a_token'),
  check=check,
  train_specs=models.train_specs,
  sources=text_of,
)
