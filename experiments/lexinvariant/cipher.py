# SPDX-License-Identifier: Apache-2.0
"""Substitution ciphers read by a probe of the frozen lexinvariant model (Figures 4 to 6)."""

import functools
import io
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import runner
from experiments.lexinvariant import models, text
from lib import stats
from lib.data import ciphers, pipeline, sources
from lib.errors import InputError
from lib.evals import cipher
from lib.evals.in_context import above_chance
from lib.models.decoder import LanguageModel
from lib.models.probe import Probe
from lib.report.results import Row, name
from lib.train import optimizer
from lib.train.experiment import Batch, Experiment, Variables

KEY_SEED = 1 << 20  # of the test ciphers
MATRICES = 'cipher_keys.npz'  # kept for the plots
TRAIN_BYTES = 2**22  # of plain text, which the solvers without a model count
SEEDLESS = ('frequency_matching', 'hill_climbing')
COMPARED = (  # (solver, factor, solver): whether the first is above so many times the second
  ('majority', 2.0, 'untrained_majority'),
  ('majority', 1.0, 'frequency_matching'),
  ('hill_climbing', 1.5, 'majority'),
)


class Reader(NamedTuple):
  """A frozen model and the probe that reads symbols from it.

  Attributes:
    logits: ids [N, T] -> float32 [N, T - 1, V], which plain symbol each but the last stands for.
    accuracy: of the probe while it was trained, by step.
  """

  logits: Callable[[np.ndarray], np.ndarray]
  accuracy: dict[int, float]


def check(config: ConfigDict) -> None:
  """Raises InputError for text, models or ciphers that cannot be had."""
  text.check(config)
  for field in ('probe_dim', 'steps', 'texts'):
    if config.cipher[field] < 1:
      raise InputError(f'cipher.{field} must be 1 or more; got {config.cipher[field]}.')


def table(config: ConfigDict, run: runner.Run) -> list[Row]:
  """Enciphers test text, a key for each, and scores every way to find the keys."""
  rows: list[Row] = []
  letters: list[str] = []
  pictures: dict[str, np.ndarray] = {}
  for corpus in text.corpora(config):
    if not corpus.alphabet:
      continue  # the paper's ciphers are of characters
    readers = [make_reader(config, run, corpus, seed) for seed in text.seeds(config)]
    untrained = [
      make_reader(config, run, corpus, seed, trained=False) for seed in text.seeds(config)
    ]
    rows += _rows(config, corpus, readers, untrained)
    pictures |= _key_matrices(config, corpus, readers[0])
    letters.append(_letter(config, corpus, readers[0]))
  run.keep(MATRICES, _archive(pictures))
  run.keep('ciphers.txt', '\n\n'.join(letters) + '\n')
  return rows


def make_reader(
  config: ConfigDict, run: runner.Run, corpus: text.Corpus, seed: int, trained: bool = True
) -> Reader:
  """Trains a probe on the frozen model (or on one of random parameters), or takes it up."""
  options = config.cipher
  dtype = jnp.dtype(config.dtype)
  if trained:
    fitted = text.fit(config, run, corpus, 'lexinvariant', seed)
    model, frozen = fitted.model, fitted.variables
  else:
    of_text = models.evaluated(config.text)
    model = models.make_model(of_text, 'lexinvariant', corpus.vocab_size, dtype)
    first = next(iter(text.batches(config, corpus, seed)))
    frozen = jax.jit(model.init)(jax.random.key(seed), first, jax.random.key(seed))
  frozen = jax.device_get(frozen)  # to become part of a state on whatever mesh
  probe = Probe(corpus.vocab_size, options.probe_dim)
  read = jax.jit(functools.partial(_read, model, probe))
  held = text.held_out(corpus, 'validation', config.text.length, 64).ids

  def accuracy(variables: Variables) -> dict[str, float]:
    guesses = _in_parts(functools.partial(read, variables), held, corpus.vocab_size)
    return {'accuracy': float((guesses.argmax(axis=-1) == held[:, :-1]).mean())}

  name_of_run = f'cipher/{corpus.row},{name(trained=trained, seed=seed)}'
  chain = optimizer.make_optimizer(
    'adamw', optimizer.make_schedule('cosine', options.peak, options.steps, 0, 0.01)
  )
  state, history = runner.train(
    _probing(read, frozen, probe, config.text.dim, corpus, text.batches(config, corpus, seed + 1),
             {'validation': accuracy}),
    chain,
    config,
    run,
    options,
    name=name_of_run,
    seed=seed,
  )  # fmt: skip
  _check_same(run, name_of_run, state['variables']['frozen'], frozen['params'])
  logits = lambda ids: _in_parts(
    functools.partial(read, state['variables']), ids, corpus.vocab_size
  )
  known = {line['step']: line[key] for line in history if (key := 'validation/accuracy') in line}
  return Reader(logits, known)


def _check_same(run: runner.Run, probe: str, kept: Any, model: Any) -> None:
  """Raises InputError if a probe that was taken up had been trained on another model."""
  same = jax.tree.map(np.array_equal, jax.device_get(kept), jax.device_get(model))
  if not all(jax.tree.leaves(same)):
    raise InputError(
      f'the probe in {run.workdir / "checkpoints" / probe} was trained on another model than the '
      'one in this workdir: delete its folder, and the next run trains it again.'
    )


def _probing(
  read: Callable,
  frozen: Variables,
  probe: Probe,
  dim: int,
  corpus: text.Corpus,
  batches,
  evaluations: Mapping[str, Callable],
) -> Experiment:
  """Trains the probe alone: the model is a collection that no gradient touches."""

  def init_fn(key: jax.Array, batch: Batch) -> Variables:
    params = probe.init(key, jnp.zeros((1, 1, dim)))['params']
    return {'params': params, 'frozen': frozen['params']}

  def loss_fn(variables: Variables, batch: Batch, key: jax.Array):
    known = (batch['segments'] > 0) & (batch['inputs'] < corpus.vocab_size)
    symbols = jnp.minimum(batch['inputs'], corpus.vocab_size - 1)
    log_p = jax.nn.log_softmax(read(variables, batch, key))
    nats = -jnp.take_along_axis(log_p, symbols[..., None], axis=-1)[..., 0]
    total = jnp.where(known, nats, 0.0).sum()
    sums = {'nats': total, 'bytes': batch['bytes'].sum(), 'tokens': known.sum()}
    return total / known.sum(), sums

  return Experiment(init_fn, loss_fn, batches, evaluations)


def _read(
  model: LanguageModel, probe: Probe, variables: Variables, batch: Batch, key: jax.Array
) -> jax.Array:
  """Logits [B, T, V] of the symbol that each *input* stands for, under one draw of rows."""
  hidden = model.apply({'params': variables['frozen']}, batch, key, method=_final_hidden)
  return cast(jax.Array, probe.apply({'params': variables['params']}, hidden))


def _final_hidden(model: LanguageModel, batch: Batch, key: jax.Array) -> jax.Array:
  return model.hidden(batch, model.embedding.draw(key, batch))[0]


def _in_parts(read: Callable, ids: np.ndarray, vocab_size: int) -> np.ndarray:
  """Logits [N, T - 1, V] of all symbols but the last, which is no input."""
  parts = np.array_split(ids, -(-len(ids) // 128))
  keys = jax.random.split(jax.random.key(0), len(parts))
  return np.concatenate([
    np.asarray(read(pipeline.whole(part, vocab_size), key))[:, 1:]
    for part, key in zip(parts, keys)
  ])  # fmt: skip


def enciphered(
  config: ConfigDict, corpus: text.Corpus, one_key: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Cipher ids [N, T] of test text, the plain symbol of each one [N, V], and documents [N]."""
  plain, documents = text.held_out(corpus, 'test', config.text.length, config.cipher.texts)
  alphabet = corpus.alphabet or b''
  keys = [
    ciphers.random_key(alphabet, text.LETTERS, KEY_SEED + (0 if one_key else n))
    for n in range(len(plain))
  ]
  encode, decode = corpus.tokenizer.encode, corpus.tokenizer.decode
  ids = np.stack([encode(ciphers.encipher(decode(one), key, alphabet))
                  for one, key in zip(plain, keys)])  # fmt: skip
  truth = np.stack([encode(ciphers.decipher(alphabet, key, alphabet)) for key in keys])
  return ids, truth, documents


def _starts(config: ConfigDict) -> list[int]:
  last = config.text.length - 1 - config.text.window
  return [start for start in (0, 25, 50, 75, 100, 150, 200, 250, 400) if start < last] + [last]


def _rows(
  config: ConfigDict, corpus: text.Corpus, readers: list[Reader], untrained: list[Reader]
) -> list[Row]:
  """Precision and accuracy of every solver by window; the symbols of all windows are scored.

  Solvers that read a model are crossed, seeds × documents; the others have no seeds.
  """
  ids, truth, documents = enciphered(config, corpus)
  read = [reader.logits(ids) for reader in readers]
  blank = [reader.logits(ids) for reader in untrained]
  ids, size, width = ids[:, :-1], corpus.vocab_size, config.text.window
  known = sources.sample(corpus.documents('train'), TRAIN_BYTES)
  train_ids = np.concatenate([corpus.tokenizer.encode(document) for document in known])
  frequency = np.bincount(train_ids, minlength=size)
  bigrams = cipher.bigram_table(train_ids, size)
  votes = lambda logits, at: cipher.majority_key(cipher.window_votes(logits, ids, at, width))
  solvers: dict[str, Callable[[int], list[np.ndarray]]] = {
    'majority': lambda at: [votes(logits, at) for logits in read],
    'assignment': lambda at: [
      cipher.assignment_key(cipher.window_probabilities(logits, ids, at, width))
      for logits in read
    ],
    'untrained_majority': lambda at: [votes(logits, at) for logits in blank],
    'frequency_matching': lambda at: [cipher.frequency_matching(ids, frequency, at, width)],
    'hill_climbing': lambda at: [cipher.hill_climb(
      ids, cipher.frequency_matching(ids, frequency, at, width), bigrams, at, width)],
  }  # fmt: skip
  rows: list[Row] = []
  precisions: dict[str, np.ndarray] = {}  # in the last window, by solver
  for solver, solve in solvers.items():
    row = name(data=corpus.data, vocabulary=corpus.vocabulary, solver=solver)
    estimate = functools.partial(_estimate, documents=documents, seeds=solver not in SEEDLESS)
    put = lambda column, values, note, row=row, estimate=estimate: Row.of(
      'cipher', row, column, estimate(np.stack(values)), unit='fraction', note=note
    )
    of_keys = f'share of the window’s symbols whose key is right; {len(ids)} texts, a key each'
    precision = {}
    for at in _starts(config):
      keys, seen = solve(at), cipher.seen_symbols(ids, size, at, width)
      precision[at] = [cipher.precision(key, truth, seen) for key in keys]
      of_window = [cipher.accuracy(key, truth, ids, at, width) for key in keys]
      rows += [
        put(f'precision_at_{at}', precision[at], of_keys),
        put(f'accuracy_at_{at}', of_window, 'share of characters'),
      ]
    first, last = precision[0], precision[max(precision)]
    precisions[solver] = np.stack(last)
    rows += [
      put('precision_at_last_window', last, of_keys),
      put('precision_gain', [b - a for a, b in zip(first, last)], 'last window less first, paired'),
    ]
  rows += _above(corpus, precisions, documents)
  return [*rows, *_of_probe(corpus, read, ids, truth, documents, frequency),
          _pooled(config, corpus, readers)]  # fmt: skip


def _estimate(values: np.ndarray, documents: np.ndarray, seeds: bool) -> stats.Estimate:
  """Mean of values [S, N] over texts and models, with its error over documents (and seeds)."""
  above = stats.by_group(values, documents)
  below = stats.by_group(np.ones(len(documents)), documents)
  each = stats.contributions(above, below)
  return stats.crossed(each) if seeds else stats.mean(each[0], 'documents')


def _above(
  corpus: text.Corpus, precisions: Mapping[str, np.ndarray], documents: np.ndarray
) -> list[Row]:
  """Precision of one solver less that of another (times a factor), by precisions [S, N]."""
  rows = []
  for solver, factor, other in COMPARED:
    difference = precisions[solver] - factor * precisions[other]
    times = '' if factor == 1 else f'{factor:g}x_'
    rows.append(Row.of(
      'cipher', name(data=corpus.data, vocabulary=corpus.vocabulary, solver=solver),
      f'precision_above_{times}{other}', _estimate(difference, documents, seeds=True),
      unit='fraction', note='in the last window, paired by seed and text',
    ))  # fmt: skip
  return rows


def _of_probe(
  corpus: text.Corpus,
  read: list[np.ndarray],
  ids: np.ndarray,
  truth: np.ndarray,
  documents: np.ndarray,
  frequency: np.ndarray,
) -> list[Row]:
  """How often the probe reads single positions rightly, as it is and with guessing taken out."""
  row = name(data=corpus.data, vocabulary=corpus.vocabulary, solver='probe')
  plain = np.take_along_axis(truth, ids, axis=1)
  right = np.stack([(logits.argmax(axis=-1) == plain).mean(axis=1) for logits in read])
  found = _estimate(right, documents, seeds=True)
  guess = _estimate((plain == frequency.argmax()).mean(axis=1)[None], documents, seeds=False)
  note = 'of single positions, all of them'
  return [
    Row.of('cipher', row, 'accuracy', found, unit='fraction', note=note),
    Row.of('cipher', row, 'accuracy_above_chance', above_chance(found, guess), unit='fraction',
           note=f'the share of the most frequent symbol, {guess.value:.3f}, taken out; 0 at least'),
  ]  # fmt: skip


def _pooled(config: ConfigDict, corpus: text.Corpus, readers: list[Reader]) -> Row:
  """Votes of the last windows of all texts under one key, taken together (Figure 4b)."""
  ids, truth, _ = enciphered(config, corpus, one_key=True)
  known, at = ids[:, :-1], _starts(config)[-1]
  found = []
  for reader in readers:
    votes = cipher.window_votes(reader.logits(ids), known, at, config.text.window)
    votes = votes.sum(axis=0, keepdims=True)
    key, seen = cipher.majority_key(votes), votes.any(axis=-1)
    found.append(cipher.precision(key, truth[:1], seen).item())
  row = name(data=corpus.data, vocabulary=corpus.vocabulary, solver='pooled_majority')
  note = f'votes of the last windows of {len(ids)} texts under one key'
  estimate = stats.mean(found)
  return Row.of('cipher', row, 'precision_at_last_window', estimate, unit='fraction', note=note)


def _key_matrices(config: ConfigDict, corpus: text.Corpus, reader: Reader) -> dict[str, np.ndarray]:
  """Probability of each plain symbol (columns) for each cipher symbol, by window (Figure 5)."""
  ids, truth, _ = enciphered(config, corpus, one_key=True)
  logits, ids = reader.logits(ids), ids[:, :-1]
  width = min(50, config.text.window)
  matrices = {}
  for at in (0, 50, 100, 200):
    if at + width <= ids.shape[1]:
      sums = cipher.window_probabilities(logits, ids, at, width).sum(axis=0)
      ordered = sums[np.argsort(truth[0])]  # the right key is the diagonal
      shares = ordered / np.maximum(ordered.sum(axis=-1, keepdims=True), 1e-9)
      matrices[f'{corpus.data} at {at}'] = shares
  return matrices


def _archive(matrices: Mapping[str, np.ndarray]) -> bytes:
  file = io.BytesIO()
  np.savez_compressed(file, **cast(Any, matrices))
  return file.getvalue()


def _letter(config: ConfigDict, corpus: text.Corpus, reader: Reader) -> str:
  """A few test texts, enciphered and deciphered, for a person to read."""
  ids, truth, _ = enciphered(config, corpus)
  decode = corpus.tokenizer.decode
  parts = []
  for one, key in zip(ids[:3], truth[:3]):
    found = solve(reader, one[None])[0]
    right = cipher.precision(
      found[None], key, cipher.seen_symbols(one[None], len(key), 0, len(one))
    )
    plain, stand_in = cipher.apply_key(one[None], found[None], 0)[0], key[one]
    parts.append(
      f'=== {corpus.row}\n--- cipher text\n{_shown(decode(one))}\n--- recovered\n'
      f'{_shown(decode(plain))}\n--- true\n{_shown(decode(stand_in))}\n'
      f'--- key: {right[0]:.0%} of its symbols right\n{key_lines(corpus, found)}'
    )
  return '\n\n'.join(parts)


def solve(reader: Reader, ids: np.ndarray) -> np.ndarray:
  """Keys [N, V] of cipher texts [N, T] by the votes of their second half, one-to-one."""
  logits, known = reader.logits(ids), ids[:, :-1]
  # Late positions have read more; the early ones serve for symbols that occur nowhere else.
  weights = np.where(np.arange(known.shape[1]) < known.shape[1] // 2, 0.1, 1.0)
  size = logits.shape[-1]
  scores = np.zeros((len(ids), size, size))
  shares = jax.nn.softmax(logits, axis=-1) * weights[None, :, None]
  np.add.at(scores, (np.arange(len(ids))[:, None], known), np.asarray(shares, np.float64))
  return cipher.assignment_key(scores)


def key_lines(corpus: text.Corpus, key: np.ndarray) -> str:
  """The key as two lines: cipher letters above, plain letters below, · where unknown."""
  decode = lambda i: _shown(corpus.tokenizer.decode([i])) if i >= 0 else '·'
  known = [i for i in range(len(key)) if key[i] >= 0]
  return '  '.join(decode(i) for i in known) + '\n' + '  '.join(decode(key[i]) for i in known)


def _shown(data: bytes) -> str:
  return data.decode('utf-8', 'backslashreplace').replace('\n', '⏎')
