# SPDX-License-Identifier: Apache-2.0
"""The output of `evaluate`: lines and CSV files of a model's scores."""

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from lib import atomic, stats
from lib.errors import InputError
from lib.language_model import TokenLoss, TrainedModel, byte_law
from lib.parallel import sharding
from lib.tasks import multiple_choice, questions

LOG_2 = float(np.log(2))


def summary(
  model: TrainedModel, texts: Sequence[bytes], losses: Sequence[TokenLoss], seconds: float
) -> Iterator[str]:
  """Lines about the model's predictions of the texts."""
  scored = [loss for loss in losses if loss.bytes.sum()]
  tokens, size = (sum(int(count) for count in counts) for counts in (
    (loss.nats.size for loss in scored), (loss.bytes.sum() for loss in scored)
  ))  # fmt: skip
  if not size:
    yield 'no byte of this text is scored: each document is one token, and the model has no BOS.'
    return
  found = stats.ratio([loss.nats.sum() for loss in scored], [loss.bytes.sum() for loss in scored])
  bits = found.times(1 / LOG_2)
  error = 'of one document, so its error is unknown'
  if bits.sem is not None:
    error = f'standard error {bits.sem:.4f} over {bits.n} documents'
  yield f'{bits.value:.4f} bits_per_byte, {error}'
  yield (
    f'{size:,} bytes in {tokens:,} tokens of {size / tokens:.2f} bytes; '
    f'{tokens / seconds:,.0f} tokens/s, compilation included'
  )
  total = sum(map(len, texts))
  if total > size:
    yield f'{(total - size) / total:.2%} of the bytes are not scored: the model has no BOS'
  if model.tokenizer is not None and not model.tokenizer.lossless:
    yield 'the tokenizer does not restore every text, so this is too low'
  yield 'bits per byte by the place of a token in its document:'
  first = 0
  while any(loss.nats.size > first for loss in losses):
    stop = max(1, 2 * first)
    nats = sum(loss.nats[first:stop].sum() for loss in losses)
    covered = sum(int(loss.bytes[first:stop].sum()) for loss in losses)
    value = f'{nats / LOG_2 / covered:.4f}' if covered else 'no bytes'
    yield f'{first + 1:>8,} to {stop:<8,} {value}'
    first = stop


def of_bytes(
  texts: Sequence[bytes], losses: Sequence[TokenLoss], found: byte_law.ByteLoss,
  leak: str = 'report',
) -> Iterator[str]:  # fmt: skip
  """Lines on the exact law of bytes, next to that of the texts' own tokens.

  Args:
    texts: the documents.
    losses: of their tokens.
    found: of their bytes.
    leak: how lost probability was treated, as `evaluate` names it.
  """
  size = sum(map(len, texts))
  bits = lambda rows: sum(float(nats.sum()) for nats in rows) / LOG_2 / size
  yield f'{bits(found.nats):.4f} bits_per_byte_bytes, {LAWS[leak]}'
  yield f'{bits([loss.nats for loss in losses]):.4f} bits_per_byte_tokens, of the encoding'
  lost = found.leak_per_token()
  error = '' if lost.sem is None else f'standard error {lost.sem:.1e} over {lost.n} documents; '
  yield f'{lost.value:.2e} leak_nats_per_token, {error}to tokens that may not follow'
  yield f'{found.sum_error:.1e} next_byte_sum_error: |bytes + end + leak − 1|, at most'
  yield f'{found.evaluations / size:.2f} evaluations of the model for a byte'


LAWS = {
  'report': 'over all covers',
  'renormalise': 'over all covers, the probabilities of each byte scaled to 1',
  'beam': 'over the token sequences that the beam follows',
}
SCORES = {  # quantity of `multiple_choice.quantities` -> in words
  'accuracy_log_likelihood': 'accuracy: the likeliest of the letters',
  'accuracy_one_token': 'probability that the first token is the right letter',
  'accuracy_two_tokens': 'the same where a space may come first',
  'p_valid_letter_two_tokens': 'probability of any of the letters',
  'chance': 'accuracy by chance',
  'best_constant': 'accuracy of always the same letter, the best one',
  'truncated': 'share of questions that lost their beginning',
}


def answered(model: TrainedModel, asked: Sequence[questions.Question]) -> Iterator[str]:
  """Lines about the model's answers to questions."""
  if model.tokenizer is None:
    raise InputError('this model has no tokenizer, with which questions could be asked.')
  mesh = model.mesh or sharding.make_mesh({}, jax.devices()[:1])
  answers = multiple_choice.ask(
    model.next_log_probs, asked, model.tokenizer, mesh, length=model.context, bos=model.bos
  )
  yield f'{len(asked):,} questions; ± is the standard error over them'
  scores = multiple_choice.quantities(answers, asked)
  for name, words in SCORES.items():
    found = stats.ratio(*scores[name])
    measured = found.sem is not None and name.startswith(('accuracy', 'p_'))
    error = f' ± {found.sem:.4f}' if measured else ''
    yield f'{found.value:.4f}{error:9}  {words}'


def write_bytes(path: pathlib.Path, texts: Sequence[bytes], nats: Sequence[np.ndarray]) -> None:
  """The nats of each byte as CSV."""
  out = io.StringIO()
  lines = csv.writer(out, lineterminator='\n')
  lines.writerow(('document', 'place', 'byte', 'nats'))
  for i, (text, row) in enumerate(zip(texts, nats, strict=True)):
    lines.writerows((i, at, *pair) for at, pair in enumerate(zip(text, row, strict=True)))
  atomic.write(path, out.getvalue())


def write(path: pathlib.Path, losses: Sequence[TokenLoss], view: str, model: TrainedModel) -> None:
  """The scores as CSV."""
  out = io.StringIO()
  lines = csv.writer(out, lineterminator='\n')
  if view == 'documents':
    lines.writerow(('document', 'bytes', 'tokens', 'nats', 'bits_per_byte'))
    for i, loss in enumerate(losses):
      size, nats = int(loss.bytes.sum()), float(loss.nats.sum())
      lines.writerow((i, size, loss.nats.size, nats, nats / LOG_2 / size if size else ''))
  else:
    lines.writerow(('document', 'token', 'id', 'piece', 'bytes', 'nats'))
    piece = lambda token: repr((model.tokenizer and model.tokenizer.token_bytes(token)) or b'')[
      2:-1
    ]
    for i, loss in enumerate(losses):
      for j, (token, size, nats) in enumerate(zip(loss.ids, loss.bytes, loss.nats, strict=True)):
        lines.writerow((i, j, token, piece(int(token)), size, nats))
  atomic.write(path, out.getvalue())
