# SPDX-License-Identifier: Apache-2.0
"""Table `cut`: prompts that end at any byte, and their continuations."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments.byte_exact import bias, models
from experiments.recipe import Run, Table, text_of
from lib.data.excerpts import Excerpts
from lib.decoding.byte_view import END, ByteTexts
from lib.language_model import TrainedModel, byte_law, cached_law
from lib.report.results import Rows

FIRST = 16  # bytes of the shortest prompt
METHODS: Mapping[str, int | None] = {**bias.METHODS, 'all': None}


def measure(config: ConfigDict, run: Run) -> Rows:
  """Nats of the bytes after a cut, and how often the most likely bytes are the right ones."""
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
      method: continuations(trained, prompts, after, method, options.beam, options.greedy)
      for method in METHODS
    }
    for cut, kept in (('any', inside | True), ('inside', inside), ('edge', ~inside)):
      if text.where(kept).distinct > 1:
        add(rows, {'tokenizer': name, 'cut': cut}, f'of_{options.after}_bytes', found, text, kept)
    share = models.estimate(inside[None].astype(float), text).value
    rows.add({'tokenizer': name}, 'cuts_inside_a_token', share, 'share of prompts')
  return rows


class Found(NamedTuple):
  """How S models predict what comes after N prompts.

  Attributes:
    nats: −log P of the bytes, [S, N]. Each distribution of a next byte is scaled to a sum of 1.
    lost: −log of the product of the sums before scaling, [S, N]: what the model leaked and the
      beam dropped.
    right: whether each guessed byte, the most likely one, is that of the text, [S, N].
  """

  nats: np.ndarray
  lost: np.ndarray
  right: np.ndarray


def add(
  rows: Rows, where: Mapping[str, str], what: str, found: Mapping[str, Found], text: Excerpts,
  kept: np.ndarray,
) -> None:  # fmt: skip
  """Adds the rows of each method for the prompts where `kept` [N] is true."""
  mean = lambda values: models.estimate(values[:, kept], text.where(kept))
  for method, one in found.items():
    here = {**where, 'method': method}
    rows.add(here, f'nats_{what}', mean(one.nats), 'nats', 'each distribution is scaled to 1')
    if method != 'exact':
      above = mean(one.nats - found['exact'].nats)
      rows.add(here, 'nats_above_exact', above, 'nats', 'paired by seed and prompt')
    rows.add(here, 'nats_lost', mean(one.lost), 'nats', '−log of the sums before scaling')
    rows.add(here, 'exact_completions', mean(one.right), 'share', 'all guessed bytes are right')


def continuations(
  several: Sequence[TrainedModel], prompts: Sequence[bytes], after: Sequence[bytes], method: str,
  beam: int, greedy: int,
) -> Found:  # fmt: skip
  """Predictions of what comes after each prompt, by models of one tokenizer.

  Args:
    several: S models.
    prompts: N texts.
    after: the bytes after each.
    method: how prompts are read, of METHODS.
    beam: the most token sequences of a text that are followed, except by `exact`.
    greedy: bytes after each prompt that are guessed, each one after the right bytes.
  """
  exact, found = method == 'exact', []
  vocabulary = byte_law.vocabulary(several[0], every=not exact)
  for model in several:
    one = Found(np.zeros(len(prompts)), np.zeros(len(prompts)), np.ones(len(prompts), bool))
    for start in range(0, len(prompts), byte_law.TEXTS):
      some = prompts[start : start + byte_law.TEXTS]
      if exact:
        nodes = [vocabulary.tree(prompt).trunk() for prompt in some]
      else:
        encoded = [loss.ids.tolist() for loss in model.token_loss(some)]
        nodes = [bias.kept(vocabulary, ids, METHODS[method]) for ids in encoded]
      law = cached_law.CachedLaw(model, len(some))
      reader = ByteTexts(vocabulary, law, len(some), None if exact else beam)
      bias.begin(reader, nodes, some)
      part = Found(*(values[start : start + len(some)] for values in one))
      _read(reader, after[start : start + len(some)], part, greedy)
    found.append(one)
  return Found(*map(np.stack, zip(*found, strict=True)))


def _read(reader: ByteTexts, after: Sequence[bytes], out: Found, greedy: int) -> None:
  """Reads what comes after each prompt, and adds how well it was predicted to `out`."""
  for at in range(max(map(len, after))):
    which = np.array([i for i, text in enumerate(after) if at < len(text)])
    bytes_ = np.array([after[i][at] for i in which])
    laws = reader.next_bytes()[which]
    if at < greedy:
      out.right[which] &= laws[:, :END].argmax(axis=1) == bytes_
    total = laws.sum(axis=1)
    out.lost[which] -= np.log(total)
    out.nats[which] -= np.log(laws[np.arange(len(which)), bytes_] / total)
    reader.append(which.tolist(), bytes_.tolist())


def check(config: ConfigDict) -> None:
  """Raises InputError for an invalid table."""
  models.check(config, config.cut.prompt + config.cut.after, 'cut.prompt')


TABLE = Table(
  'cut',
  measure,
  'Prompts from held-out text, cut at a random byte: `inside` a token of the whole text, or at an '
  '`edge` between two tokens. `naive` conditions on the tokens of the prompt. `heal1` and `heal2` '
  'take back the last one or two tokens, `all` takes back all; these methods sum over all token '
  'sequences that spell the remaining bytes, of which they follow the `beam` most likely ones. '
  '`exact` sums over the covers of the prompt: only sequences that the tokenizer writes. All '
  'methods predict the same bytes with distributions that are scaled to a sum of 1. `nats_lost` '
  'is what scaling adds: for `exact`, what the model leaks to other sequences. ± is one standard '
  'error over seeds × documents; differences are paired.',
  ('nats_above_exact', 'nats_lost', 'exact_completions', 'cuts_inside_a_token'),
  check=check,
  train_specs=models.train_specs,
  sources=text_of,
)
