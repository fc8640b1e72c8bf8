# SPDX-License-Identifier: Apache-2.0
"""Substitution ciphers read by a probe of the frozen lexinvariant model (Figures 4 to 6)."""

import dataclasses
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import fit
from experiments.lexinvariant import decoders, text_models
from experiments.recipe import Pictures, Run, Table
from lib import stats
from lib.data import sources
from lib.errors import InputError
from lib.evals.probing import Probing
from lib.language_model import TrainedModel
from lib.models.probe import Probe
from lib.report import plots
from lib.report.plots import Picture
from lib.report.results import Row, Rows, name, series
from lib.tasks import ciphers
from lib.tasks.look_up import above_chance
from lib.train.experiment import Variables

KEY_SEED = 1 << 20  # of the test ciphers
MATRICES = 'cipher_keys.npz'  # kept for the plots
TRAIN_BYTES = 2**22  # plain text for the counts of the solvers without a model
SEEDLESS = ('frequency_matching', 'hill_climbing')
COMPARED = (  # (solver, factor, solver): the first is compared with `factor` times the second
  ('majority', 2.0, 'untrained_majority'),
  ('majority', 1.0, 'frequency_matching'),
  ('hill_climbing', 1.5, 'majority'),
)
# ids [N, T] -> float32 [N, T - 1, V], logits of the plain symbol of each but the last.
Reader = Callable[[np.ndarray], np.ndarray]


class Texts(NamedTuple):
  """Cipher texts, ids [N, T]; the plain symbol of each one, [N, V]; and their documents [N]."""

  ids: np.ndarray
  truth: np.ndarray
  documents: np.ndarray


def check(config: ConfigDict) -> None:
  """Raises InputError for missing text, or models or ciphers that cannot be made."""
  text_models.check(config)


def measure(config: ConfigDict, run: Run) -> Rows:
  """Enciphers each test text with its own key, and scores every solver."""
  rows, letters = Rows('cipher'), []
  matrices: dict[str, np.ndarray] = {}
  for corpus in text_models.corpora(config):
    if not corpus.alphabet:
      continue  # the paper's ciphers are of characters
    trained = [one.model for one in text_models.train(config, run, corpus, 'lexinvariant')]
    readers = make_readers(config, run, corpus, trained)
    blank = make_readers(config, run, corpus, _untrained(config, corpus), trained=False)
    texts = enciphered(config, corpus)
    _add(rows, config, corpus, texts, readers, blank)
    of_one_key = enciphered(config, corpus, one_key=True)
    logits = [reader(of_one_key.ids) for reader in readers]
    _add_pooled(rows, config, corpus, of_one_key, logits)
    matrices |= _key_matrices(config, corpus, of_one_key, logits[0])
    letters.append(_letter(corpus, texts, readers[0]))
  archive = io.BytesIO()
  np.savez_compressed(archive, **cast(Any, matrices))
  run.keep(MATRICES, archive.getvalue())
  run.keep('ciphers.txt', '\n\n'.join(letters) + '\n')
  return rows


def _untrained(config: ConfigDict, corpus: text_models.Corpus) -> list[TrainedModel]:
  """Models of random parameters."""
  options, size = config.text, corpus.tokenizer.vocab_size
  model = decoders.make_model(options, 'lexinvariant', size, fit.dtype(config))
  first = next(iter(text_models.batches(options, corpus, config.seed)))
  return fit.untrained(model, first, fit.seeds(config, options), options.length, corpus.tokenizer)


def make_readers(
  config: ConfigDict,
  run: Run,
  corpus: text_models.Corpus,
  frozen: Sequence[TrainedModel],
  trained: bool = True,
) -> list[Reader]:
  """Trains a probe on each frozen model, or resumes it."""
  options = config.cipher
  found: list[Reader] = []
  held = text_models.held_out(corpus, 'validation', config.text.length, 64).ids
  for seed, model in zip(fit.seeds(config, config.text), frozen):
    probing = Probing(model, Probe(corpus.tokenizer.vocab_size, options.probe_dim))

    def accuracy(variables: Variables, probing: Probing = probing) -> dict[str, float]:
      guesses = probing.logits(variables, held).argmax(axis=-1)
      return {'accuracy': float((guesses == held[:, :-1]).mean())}

    experiment = dataclasses.replace(
      probing.experiment,
      batches=text_models.batches(options, corpus, seed + 1),
      evaluations={'validation': accuracy},
    )
    run_name = f'cipher/{name(**corpus.where, trained=trained, seed=seed)}'
    state, _ = fit.train(experiment, config, run, options, name=run_name, seed=seed)
    check_same(run, run_name, state['variables']['frozen'], probing.frozen)
    found.append(functools.partial(probing.logits, state['variables']))
  return found


def check_same(run: Run, probe: str, kept: Any, model: Any) -> None:
  """Raises InputError if a resumed probe was trained on another model."""
  same = jax.tree.map(np.array_equal, jax.device_get(kept), jax.device_get(model))
  if not all(jax.tree.leaves(same)):
    raise InputError(
      f'the probe in {run.workdir / "checkpoints" / probe} was trained on another model than the '
      'one in this workdir: delete its folder, and the next run trains it again.'
    )


def enciphered(config: ConfigDict, corpus: text_models.Corpus, one_key: bool = False) -> Texts:
  """Test text under random keys, one for all or one for each."""
  held = text_models.held_out(corpus, 'test', config.text.length, config.cipher.texts)
  alphabet, tokenizer = corpus.alphabet or b'', corpus.tokenizer
  seeds = [KEY_SEED + (0 if one_key else n) for n in range(len(held))]
  keys = [ciphers.random_key(alphabet, text_models.LETTERS, seed) for seed in seeds]
  plain = [tokenizer.decode(one) for one in held.texts]
  texts = [ciphers.encipher(one, key, alphabet) for one, key in zip(plain, keys)]
  truth = [ciphers.decipher(alphabet, key, alphabet) for key in keys]
  encode = lambda texts: np.stack([tokenizer.encode(one) for one in texts])
  return Texts(encode(texts), encode(truth), held.documents)


def _starts(config: ConfigDict) -> list[int]:
  last = config.text.length - 1 - config.text.window
  return [start for start in (0, 25, 50, 75, 100, 150, 200, 250, 400) if start < last] + [last]


def _add(
  rows: Rows,
  config: ConfigDict,
  corpus: text_models.Corpus,
  texts: Texts,
  readers: Sequence[Reader],
  untrained: Sequence[Reader],
) -> None:
  """Precision and accuracy of every solver by window; the symbols of all windows are scored."""
  read, blank = ([reader(texts.ids) for reader in several] for several in (readers, untrained))
  ids, size, width = texts.ids[:, :-1], corpus.tokenizer.vocab_size, config.text.window
  known = sources.sample(corpus.documents('train'), TRAIN_BYTES)
  train_ids = np.concatenate([corpus.tokenizer.encode(document) for document in known])
  frequency = np.bincount(train_ids, minlength=size)
  bigrams = ciphers.bigram_table(train_ids, size)
  votes = lambda logits, at: ciphers.window_votes(logits, ids, at, width)
  shares = lambda logits, at: ciphers.window_probabilities(logits, ids, at, width)
  matched = functools.cache(lambda at: ciphers.frequency_matching(ids, frequency, at, width))
  solvers: dict[str, Callable[[int], list[np.ndarray]]] = {
    'majority': lambda at: [ciphers.majority_key(votes(logits, at)) for logits in read],
    'assignment': lambda at: [ciphers.assignment_key(shares(logits, at)) for logits in read],
    'untrained_majority': lambda at: [ciphers.majority_key(votes(logits, at)) for logits in blank],
    'frequency_matching': lambda at: [matched(at)],
    'hill_climbing': lambda at: [ciphers.hill_climb(ids, matched(at), bigrams, at, width)],
  }
  precisions: dict[str, np.ndarray] = {}  # in the last window, by solver
  of_keys = (
    f'share of the window’s symbols whose key is right; {len(ids)} texts, each with its own key'
  )
  for solver, solve in solvers.items():
    where, precision = corpus.where | {'solver': solver}, {}
    estimate = functools.partial(_estimate, texts, seeds=solver not in SEEDLESS)
    for at in _starts(config):
      keys, seen = solve(at), ciphers.seen_symbols(ids, size, at, width)
      precision[at] = np.stack([ciphers.precision(key, texts.truth, seen) for key in keys])
      right = np.stack([ciphers.accuracy(key, texts.truth, ids, at, width) for key in keys])
      rows.add(where, f'precision_at_{at}', estimate(precision[at]), 'fraction', of_keys)
      rows.add(where, f'accuracy_at_{at}', estimate(right), 'fraction', 'share of characters')
    precisions[solver] = last = precision[max(precision)]
    rows.add(where, 'precision_at_last_window', estimate(last), 'fraction', of_keys)
    note = 'last window less first, paired'
    rows.add(where, 'precision_gain', estimate(last - precision[0]), 'fraction', note)
  add_compared(rows, corpus.where, texts, precisions)
  where = corpus.where | {'solver': 'probe'}
  plain = np.take_along_axis(texts.truth, ids, axis=1)
  found = _estimate(texts, (np.stack(read).argmax(axis=-1) == plain).mean(axis=-1))
  rows.add(where, 'accuracy', found, 'fraction', 'of single positions, all of them')
  guess = _estimate(texts, (plain == frequency.argmax()).mean(axis=1)[None], seeds=False)
  note = f'corrected for the share of the most frequent symbol, {guess.value:.3f}; at least 0'
  rows.add(where, 'accuracy_above_chance', above_chance(found, guess), 'fraction', note)


def _estimate(texts: Texts, values: np.ndarray, seeds: bool = True) -> stats.Estimate:
  """Mean of values [S, N] over texts and models, with its error over documents (and seeds)."""
  each = stats.over_groups(values, texts.documents)
  return stats.crossed(each) if seeds else stats.mean(each[0], 'documents')


def add_compared(
  rows: Rows, corpus: Mapping[str, str], texts: Texts, precisions: Mapping[str, np.ndarray]
) -> None:
  """Precision of one solver less that of another (times a factor), by precisions [S, N]."""
  for solver, factor, other in COMPARED:
    difference = _estimate(texts, precisions[solver] - factor * precisions[other])
    column = f'precision_above_{"" if factor == 1 else f"{factor:g}x_"}{other}'
    note = 'in the last window, paired by seed and text'
    rows.add({**corpus, 'solver': solver}, column, difference, 'fraction', note)


def _add_pooled(
  rows: Rows,
  config: ConfigDict,
  corpus: text_models.Corpus,
  texts: Texts,
  logits: Sequence[np.ndarray],
) -> None:
  """Joint votes of the last windows of all texts under one key (Figure 4b)."""
  ids, found = texts.ids[:, :-1], []
  for one in logits:
    votes = ciphers.window_votes(one, ids, _starts(config)[-1], config.text.window)
    votes = votes.sum(axis=0, keepdims=True)
    key, seen = ciphers.majority_key(votes), votes.any(axis=-1)
    found.append(ciphers.precision(key, texts.truth[:1], seen).item())
  where = corpus.where | {'solver': 'pooled_majority'}
  note = f'votes of the last windows of {len(ids)} texts under one key'
  rows.add(where, 'precision_at_last_window', stats.mean(found), 'fraction', note)


def _key_matrices(
  config: ConfigDict, corpus: text_models.Corpus, texts: Texts, logits: np.ndarray
) -> dict[str, np.ndarray]:
  """Probability of each plain symbol (columns) for each cipher symbol, by window (Figure 5)."""
  ids, width, matrices = texts.ids[:, :-1], min(50, config.text.window), {}
  for at in (0, 50, 100, 200):
    if at + width <= ids.shape[1]:
      sums = ciphers.window_probabilities(logits, ids, at, width).sum(axis=0)
      ordered = sums[np.argsort(texts.truth[0])]  # the right key is the diagonal
      shares = ordered / np.maximum(ordered.sum(axis=-1, keepdims=True), 1e-9)
      matrices[f'{corpus.data} at {at}'] = shares
  return matrices


def _letter(corpus: text_models.Corpus, texts: Texts, reader: Reader) -> str:
  """A few test texts, enciphered and deciphered, for reading."""
  shown = lambda ids: _shown(corpus.tokenizer.decode(ids))
  parts = []
  for one, key in zip(texts.ids[:3], texts.truth[:3]):
    found = solve(reader, one[None])
    seen = ciphers.seen_symbols(one[None], len(key), 0, len(one))
    [right] = ciphers.precision(found, key, seen)
    [plain] = ciphers.apply_key(one[None], found, 0)
    parts.append(
      f'=== {name(**corpus.where)}\n--- cipher text\n{shown(one)}\n--- recovered\n{shown(plain)}\n'
      f'--- true\n{shown(key[one])}\n--- key: {right:.0%} of its symbols right\n'
      f'{key_lines(corpus, found[0])}'
    )
  return '\n\n'.join(parts)


def solve(reader: Reader, ids: np.ndarray) -> np.ndarray:
  """One-to-one keys [N, V] of cipher texts [N, T]."""
  return ciphers.late_key(reader(ids), ids[:, :-1])


def key_lines(corpus: text_models.Corpus, key: np.ndarray) -> str:
  """The key as two lines: cipher letters above, plain letters below, · where unknown."""
  decode = lambda i: _shown(corpus.tokenizer.decode([i])) if i >= 0 else '·'
  known = [i for i in range(len(key)) if key[i] >= 0]
  return '  '.join(decode(i) for i in known) + '\n' + '  '.join(decode(key[i]) for i in known)


def _shown(data: bytes) -> str:
  return data.decode('utf-8', 'backslashreplace').replace('\n', '⏎')


SOLVERS = {  # in pictures
  'majority': 'probe of the model, majority of its readings',
  'assignment': 'probe of the model, best one-to-one key',
  'untrained_majority': 'probe of an untrained model',
  'frequency_matching': 'matching frequencies',
  'hill_climbing': 'hill climbing on bigrams',
}


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """Precision of the keys that each solver finds, by window, and the key matrices."""
  by_corpus: dict[str, dict[str, plots.Points]] = {}
  for where in [row.where for row in rows if row.column == 'precision_at_0']:
    curve = series(rows, 'cipher', r'precision_at_(\d+)', where)
    title = f'Keys of ciphers, {where["data"]}, {where["vocabulary"]}'
    by_corpus.setdefault(title, {})[SOLVERS.get(where['solver'], where['solver'])] = curve
  label = 'first symbol of the window'
  y_label = 'share of the key that is right'
  panels = [plots.row_curves(title, label, y_label, each) for title, each in by_corpus.items()]
  alphabet = text_models.ALPHABETS[config.text.vocabularies[0]]
  labels = [chr(byte) for byte in alphabet.replace(b' ', b'_').replace(b'\n', b'/')]
  labels = labels if len(labels) <= 64 else []
  matrix = lambda title, values: plots.matrix(title, values, labels, 'read as', 'plain symbol')
  with np.load(run.workdir / MATRICES) as matrices:  # the right key is the diagonal
    keys = [matrix(title, values) for title, values in matrices.items()]
  caption = (
    'How much of the key of a substitution cipher each solver finds, by how much text it has '
    'read. Bars: one standard error over texts.'
  )
  about_keys = 'As what each plain symbol is read; a right key is the diagonal.'
  return {'cipher.png': Picture(caption, panels), 'cipher_keys.png': Picture(about_keys, keys)}


TABLE = Table(
  'cipher',
  measure,
  'Substitution ciphers of held-out text, read by a probe of the frozen lexinvariant model, next '
  'to solvers without a model. Texts, keys and readings are in ciphers.txt.',
  (
    'precision_at_0',
    'precision_at_last_window',
    'precision_gain',
    'precision_above_2x_untrained_majority',
    'precision_above_frequency_matching',
    'precision_above_1.5x_majority',
    'accuracy',
  ),
  check=check,
  pictures=pictures,
  sources=text_models.read,
  descriptions=text_models.describe,
)
