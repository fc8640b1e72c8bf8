# SPDX-License-Identifier: Apache-2.0
"""The shared parts of a workdir: tokenizers by name, the tokens of texts, and the byte model M1.

  bytes, sentencepiece, static_ac, gzip   baselines
  bpeB, bpe_unsplitB                      BPE of 2^B ids, within words and across spaces
  ac, greedyB, exactB, delayB, numberedB, topB, parsedB, prunedB
                                          by the byte model M1 (`byte_coders`), B bits

A tokenizer has a name and a token width; those with their own vocabulary (bytes, sentencepiece,
prunedB, bpeB, bpe_unsplitB) have no width. A config with such tokenizers has
the sections `data`, `m1` (`configs.common.M1`) and `tokenizers` (`train_bytes` and
`sentencepiece`).
"""

import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import grain
import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import fit
from experiments.recipe import Run, TrainSpec
from lib import tokenizers
from lib.compression import byte_coders, byte_model, teacher_forced
from lib.compression.byte_model import BOS, ByteModel, Sizes
from lib.data import encoded, epochs, pipeline, sources
from lib.data.encoded import Encoded
from lib.errors import InputError
from lib.models.decoder import LanguageModel
from lib.parallel import processes
from lib.tokenizers import Tokenizer
from lib.tokenizers.characters import Characters
from lib.tokenizers.coding import slices
from lib.tokenizers.coding.windows import EqualInfo
from lib.train.experiment import Batch

PLAIN = ('bytes', 'sentencepiece', 'static_ac', 'gzip', 'ac')
NUMBERED = re.compile(r'(greedy|delay|exact|numbered|top|parsed|pruned|bpe|bpe_unsplit)(\d+)')
OWN_VOCABULARY = ('bytes', 'sentencepiece', 'pruned', 'bpe', 'bpe_unsplit')
FROM_TEXT = ('sentencepiece', 'static_ac', 'bpe', 'bpe_unsplit', *byte_coders.FROM_TEXT)
BY_M1 = ('ac', *byte_coders.WINDOWS)  # kinds for which the paper counts the FLOPs of M1


class Method(NamedTuple):
  """A tokenizer by name.

  Attributes:
    name: such as greedy16.
    token_bits: 8, 12 or 16; None for a tokenizer with its own vocabulary.
  """

  name: str
  token_bits: int | None

  @property
  def kind(self) -> str:
    """The name without its bits."""
    return parse(self.name)[0]

  @property
  def lossless(self) -> bool:
    """Whether it is lossless; several texts share a code of greedy windows."""
    return not self.name.startswith('greedy')

  @property
  def steps_m1(self) -> bool:
    """Whether encoding a text needs M1 at every byte."""
    return byte_coders.steps(*parse(self.name))

  @property
  def where(self) -> dict[str, str | int]:
    """Its coordinates in the tables."""
    width = {} if self.token_bits is None else {'v': 1 << self.token_bits}
    return {'method': self.name, **width}


def parse(name: str) -> tuple[str, int]:
  """A name's kind and bits, 0 where it has none; raises InputError for an unknown name."""
  if name in PLAIN:
    return name, 0
  if not (match := NUMBERED.fullmatch(name)):
    raise InputError(
      f'tokenizer {name!r} is unknown: use one of {", ".join(PLAIN)}, or a kind and its bits such '
      'as greedy16 (kinds: greedy, delay, exact, numbered, top, parsed, pruned, bpe, bpe_unsplit).'
    )
  return match[1], int(match[2])


def lossy(where: Mapping[str, str]) -> bool:
  """Whether a row with these coordinates is about greedy windows."""
  return where.get('method', where.get('mode', '')).startswith('greedy')


def widths(names: Sequence[str], token_bits: Sequence[int]) -> list[list[Method]]:
  """Each name with each width of a token that it can have, narrowest first."""
  found = []
  for name in names:
    kind, bits = parse(name)
    if kind in OWN_VOCABULARY:
      found.append([Method(name, None)])
    elif there := [Method(name, t) for t in sorted(token_bits) if not bits or t <= bits]:
      found.append(there)
  return found


def kept(run: Run, name: str, learn: Callable[[], Tokenizer]) -> Tokenizer:
  """The tokenizer in the file WORKDIR/tokenizers/NAME, which is trained if it is missing.

  All processes learn it, as they may have to train a model for it.
  """
  path = run.workdir / 'tokenizers' / name
  if not processes.broadcast(path.exists()):
    tokenizer = learn()
    processes.first_only(path, lambda: tokenizers.save(tokenizer, path))
  return tokenizers.load(path)


def make(config: ConfigDict, run: Run, method: Method) -> Tokenizer:
  """The tokenizer of a method, made now or read from WORKDIR/tokenizers.

  Stepped tokenizers share one stepper, so only one can run at a time.
  """
  name = '-'.join([method.name, *(f'v{1 << t}' for t in [method.token_bits] if t)])
  if not method.steps_m1:
    return kept(run, name, lambda: _make(config, run, method))
  tokenizer, path = _make(config, run, method), run.workdir / 'tokenizers' / name
  processes.first_only(path, lambda: tokenizers.save(tokenizer, path))
  return tokenizer


def _make(config: ConfigDict, run: Run, method: Method) -> Tokenizer:
  (kind, bits), token_bits = parse(method.name), method.token_bits or 8
  text = train_documents(config) if kind in FROM_TEXT else []
  if kind in ('bpe', 'bpe_unsplit'):
    return tokenizers.train(kind, text, 1 << bits)
  if kind in PLAIN and kind != 'ac':
    size = config.tokenizers.sentencepiece if kind == 'sentencepiece' else 1 << token_bits
    return tokenizers.train(kind, text, size)
  if method.token_bits and bits and not method.steps_m1:
    widest = max(width for width in slices.WIDTHS if width <= bits)
    if token_bits != widest:  # the same table, sliced otherwise
      whole = make(config, run, Method(method.name, widest))
      assert isinstance(whole, EqualInfo)
      return EqualInfo(whole.table, token_bits)
  return byte_coders.make(m1(config, run), kind, bits, token_bits, text)


def train_documents(config: ConfigDict) -> list[bytes]:
  """Documents of the train split on which tokenizers are trained."""
  source = sources.open_source(config.data.source, 'train')
  return sources.sample(source, config.tokenizers.train_bytes)


def encode(run: Run, tokenizer: Tokenizer, texts: Sequence[bytes], known: bool = False) -> Encoded:
  """Ids of each text and the bytes that each id covers, kept in WORKDIR/encoded.

  Args:
    run: whose workdir keeps them.
    tokenizer: of the ids.
    texts: the documents.
    known: the byte model may read them in one pass (lib/compression/teacher_forced.py): nothing
      has to be decoded.
  """
  ahead = known and teacher_forced.can_read_ahead(tokenizer)
  work = functools.partial(teacher_forced.encode, tokenizer) if ahead else tokenizer.cover_batch
  which = 'one pass ' * ahead + tokenizer.fingerprint
  return encoded.encode(run.workdir / 'encoded', which, texts, work)


def check_m1(config: ConfigDict) -> None:
  """Raises InputError for an M1 that cannot be built, or missing text."""
  options = config.m1
  fit.check(options, 'm1')
  for split in ('train', 'validation', 'test'):
    sources.open_source(config.data.source, split)
  read = options.steps * options.batch_size * options.length
  epochs.check('data.source', config.data.source, read, config.scale)


def m1(config: ConfigDict, run: Run) -> ByteModel:
  """M1, the small byte model of this workdir: trained now, or by an earlier table or call."""
  path = run.workdir / 'm1'
  if not processes.broadcast(path.exists()):
    watched = lambda seed: itertools.islice(
      m1_batches(config, 'validation'), config.m1.validation_batches
    )
    trained, *_ = fit.fit(
      config,
      run,
      config.m1,
      'm1',
      m1_module(config),
      lambda seed: m1_batches(config, 'train'),
      evaluations={'validation': watched},
      tokenizer=Characters(),
    )
    model = ByteModel(_sizes(config.m1), jax.device_get(trained.variables))
    processes.first_only(path, lambda: model.save(path))
  return _load(path)


_load = functools.cache(ByteModel.load)


def m1_flops(config: ConfigDict, run: Run, name: str) -> int:
  """FLOPs of M1 for each byte that a tokenizer reads: 2 per parameter, or 0 without M1.

  Counted as in the paper, though windows of up to 16 bits are a table that needs no M1.
  """
  return 2 * m1(config, run).parameters if parse(name)[0] in BY_M1 else 0


def m1_module(config: ConfigDict) -> LanguageModel:
  """The module of M1 in the dtype of training."""
  options = config.m1
  return byte_model.make(_sizes(options), fit.dtype(config), options.remat, options.z_loss)


def m1_spec(config: ConfigDict) -> TrainSpec:
  """M1 and its training, without data."""
  return fit.train_spec(config.m1, m1_module(config))


def m1_specs(config: ConfigDict) -> dict[str, Callable[[], TrainSpec]]:
  """M1 as the models that a table trains."""
  return {'m1': functools.partial(m1_spec, config)}


def _sizes(options: ConfigDict) -> Sizes:
  names = ('layers', 'dim', 'heads', 'head_dim', 'streams', 'position', 'max_distance', 'gated',
           'activation')  # fmt: skip
  given = {name: options[name] for name in names}
  return Sizes(mlp_dim=options.mlp_dim or 4 * options.dim, context=options.length, **given)


def m1_batches(config: ConfigDict, split: str) -> grain.IterDataset:
  """Rows of documents end to end; the first input of each row is the BOS token.

  So M1 learns to predict after a BOS token in the middle of a document or word, as windows need it.
  """
  rows = pipeline.batches(
    sources.open_source(config.data.source, split),
    Characters(),
    batch_size=config.m1.batch_size,
    length=config.m1.length,
    seed=config.seed,
    lanes=config.m1.lanes,
  )
  return rows.map(_begun)


def _begun(batch: Batch) -> Batch:
  inputs = np.array(batch['inputs'])
  inputs[:, 0] = BOS
  return {**batch, 'inputs': inputs}
