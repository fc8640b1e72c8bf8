# SPDX-License-Identifier: Apache-2.0
"""Models of several tokenizers at equal FLOPs of training and equal bytes of context.

Text is cut into examples of `example_bytes` bytes (`lib.data.examples`). A step reads about
`batch_bytes` bytes.

FLOPs are counted by formula, from the tokens of the examples themselves, padding left out: forward,
2 for each parameter of the decoder and each entry of the LM head and token, and 4·L·D for each pair
of a token and one that it sees; training, three times that. If M1 makes the tokens, its 2 per
parameter and byte are added, once in reading and once in training. Looking up or sampling rows of
an embedding is not counted.

Of other decoders the modules' declarations are counted (`experiments.decoders`), for chunks that
are guessed before training. `teraflops_off` is by how much training missed its budget, by the
chunks that there were.

All models score the same held-out documents. After little training a model is close to a unigram
over its tokens, and unigrams of different tokenizers differ. So there are its bits and its gain:
the bits that its models save over a unigram over the same tokens.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import coders, decoders, fit
from experiments.recipe import Run, naming
from lib import stats
from lib.data import epochs, excerpts, own_files, sources
from lib.data.examples import Examples
from lib.data.excerpts import Excerpts
from lib.data.ngram_text import NgramText
from lib.data.sources import Source
from lib.models.decoder import Decoder, LanguageModel
from lib.parallel.mesh import batch_devices
from lib.report.results import Rows, name
from lib.tokenizers.base import Tokenizer

BITS, GAIN = 'bits_per_byte', 'gain_over_unigram_bits_per_byte'
BYTES_A_TOKEN = 4  # approximate maximum over tokenizers of the grid
HELD = 4  # bytes of memory per byte of training text: the text, its ids and four numbers per token
SHORT = 2.0  # bytes per token below which a tokenizer's tokens are short
MOST = 4  # examples of one held-out document: documents are the units of errors


class Scores(NamedTuple):
  """Scores of S models of a cell on the same D held-out documents (`lib.stats.contributions`).

  Attributes:
    bits: float64 [S, D], contributions to bits per byte.
    gain: float64 [S, D], to the bits per byte below a unigram over the same tokens.
    lossless: whether the tokenizer is lossless.
  """

  bits: np.ndarray
  gain: np.ndarray
  lossless: bool = True


Chosen = dict[tuple[str, str], tuple[float, str]]  # (family, embedding) -> rate, and where chosen


def examples(config: ConfigDict, options: ConfigDict, split: str) -> Excerpts:
  """The text of a split in examples of `example_bytes`, the same for every tokenizer.

  Where training reads a stream, train is a sample of it.

  Raises:
    InputError: no document is that long.
  """
  source, length, total = config.data.source, options.example_bytes, options[f'{split}_bytes']
  return _examples(source, split, length, total, split == 'train' and streams(options))


def streams(options: ConfigDict) -> bool:
  """Whether training reads the text of the source as it goes, not `train_bytes` in memory."""
  return options.get('stream', False)


def stream(config: ConfigDict, options: ConfigDict) -> Source | None:
  """The documents that training reads, or None if it reads examples in memory."""
  return sources.open_source(config.data.source, 'train') if streams(options) else None


@functools.lru_cache(maxsize=8)
def _examples(source: str, split: str, length: int, total: int, whole: bool) -> Excerpts:
  if whole:
    return excerpts.of_whole_documents(source, split, length=length, total=total)
  most = None if split == 'train' else MOST
  return excerpts.of_split(source, split, length=length, total=total, most=most)


def check(
  config: ConfigDict,
  options: ConfigDict,
  where: str,
  vocab_size: int,
  source: str = 'data.source',
  decoder: Any = None,
) -> None:
  """Raises InputError for a section, called `where`, whose models cannot be made or trained.

  No document may be shorter than an example, and text is not read too often. Tokens do not exist
  yet; a token is assumed to cover BYTES_A_TOKEN bytes. `source` is the field with the text.
  """
  fit.check(ConfigDict(options.to_dict() | {'steps': 1}), where)
  check_text(config, options, where)
  weights = 12 * options.layers * options.dim**2 + vocab_size * options.dim
  if decoder is not None and not isinstance(decoder, Decoder):
    model = decoders.with_rows(decoder, vocab_size)
    weights = decoders.flops(model, 2, decoders.guess(decoder)) / 2
  read = options.teraflops * 1e12 * BYTES_A_TOKEN / (6 * weights)
  check_epochs(config, options, read, source)


def check_epochs(
  config: ConfigDict, options: ConfigDict, read_bytes: float, source: str = 'data.source'
) -> None:
  """Raises InputError for training text that does not fit into memory, or is read too often."""
  epochs.check(
    source,
    config.data.source,
    read_bytes,
    config.scale,
    options.train_bytes,
    HELD,
    streams(options),
  )


def check_text(config: ConfigDict, options: ConfigDict, where: str) -> None:
  """Raises InputError if a split has no document as long as an example of the section `where`."""
  length = options.example_bytes
  for split in own_files.SPLITS:
    # Reading endless text would need its law first, so its length is taken from the spec.
    if getattr(sources.open_source(config.data.source, split), 'length', 0) < length:
      with naming(f'{where}.example_bytes'):
        excerpts.of_split(config.data.source, split, length=length, total=1)


def rows(options: ConfigDict, length: int) -> int:
  """Rows of a batch: about `batch_bytes` bytes in rows of this size, a number that device meshes
  divide.
  """
  devices = jax.device_count()
  return max(1, round(options.batch_bytes / length / devices)) * devices


class Corpus(Examples):
  """The text as tokens of one tokenizer, and their cost.

  Args:
    config: of the recipe.
    run: its workdir keeps the tokens.
    tokenizer: any.
    label: its name in rows.
    options: the section of the config with the text and the models, such as config.grid.
    m1_flops: per byte, of M1 if it makes the tokens.
    decoder: of the models; by default the plain one of `options`.

  Attributes:
    m1_flops: as given.
    law: nats [D] of the documents under the law of the text, or None if it is unknown.
    shares: tokens that begin a chunk, guessed for each stage of a hierarchy; else empty.
    steps: of training, the number that the section's `teraflops` allow.
  """

  def __init__(
    self,
    config: ConfigDict,
    run: Run,
    tokenizer: Tokenizer,
    label: str,
    options: ConfigDict,
    m1_flops: int = 0,
    decoder: Any = None,
  ):
    self.label, self.options, self.m1_flops = label, options, m1_flops
    text = {split: examples(config, options, split) for split in own_files.SPLITS}
    encode = lambda texts: coders.encode(run, tokenizer, texts, known=True)
    devices, documents = batch_devices(run.mesh), stream(config, options)
    super().__init__(tokenizer, text, encode, options.batch_bytes, devices, documents)
    source = sources.open_source(config.data.source, 'test')
    self.law = None
    if isinstance(source, NgramText):
      self.law = self.by_document(source.excerpt_nats(text['test']))
    self.decoder = fit.make_decoder(options, fit.dtype(config)) if decoder is None else decoder
    self.shares = decoders.guess(self.decoder)
    self._training = self.training_flops(self.shares)
    self.steps = max(1, round(options.teraflops * 1e12 / (self._training * self.step_bytes)))

  def training_flops(self, shares: Sequence[float]) -> float:
    """FLOPs of training per byte, M1 included, with these shares of tokens that begin a chunk."""
    return 3 * self._forward(self.train.counts, self.train_bytes, shares) + self.m1_flops

  def mflops(self, shares: Sequence[float]) -> float:
    """MFLOP to read a byte of the test text, M1 included, with these shares of tokens."""
    forward = self._forward(self.test.counts, np.sum(self.test_bytes), shares)
    return (forward + self.m1_flops) / 1e6

  @functools.cached_property
  def _weights(self) -> int:
    """Parameters of the plain decoder and the LM head."""
    return _parameters(self.decoder) + self.tokenizer.vocab_size * self.options.dim

  def _forward(self, counts: np.ndarray, size: float, shares: Sequence[float]) -> float:
    """FLOPs per byte of the forward pass, for examples with `counts` tokens."""
    tokens = counts.sum()
    if isinstance(self.decoder, Decoder):
      pairs = (counts * (counts + 1) // 2).sum()
      flops = 2 * self._weights * tokens + 4 * self.options.layers * self.options.dim * pairs
    else:
      context = (counts.astype(float) ** 2).sum() / tokens  # of a token, on average over them
      model = decoders.with_rows(self.decoder, self.tokenizer.vocab_size)
      flops = decoders.flops(model, context, shares) * tokens
    return float(flops / size)

  @property
  def family(self) -> str:
    """The group of tokenizers that share a learning rate; a choice for each would take too long.

    Rates depend on the number of steps and on the information of a token: tokens of one or two
    bytes, and longer tokens.
    """
    return 'short' if self.bytes_per_token < SHORT else 'long'

  def add_costs(self, rows: Rows, where: Mapping[str, Any]) -> None:
    """Adds the data and compute of training, and the bits of a unigram."""
    read = self.steps * self.step_bytes
    note = f'{read / self.train_bytes:.2g} times {self.train_bytes:,} bytes of text'
    if streams(self.options):
      note = f'of a stream; by a sample of {self.train_bytes:,} bytes'
    rows.add(where, 'steps', self.steps, 'steps')
    rows.add(where, 'training_bytes', read, 'bytes', note)
    note = 'by a guess of the chunks' * bool(self.shares)
    rows.add(where, 'training_gflops', self._training * read / 1e9, 'GFLOP', note)
    bits = stats.ratio(self.unigram, self.test_bytes).times(1 / np.log(2))
    note = 'over the tokens, counted on the training text'
    rows.add(where, 'unigram_bits_per_byte', bits, 'bits/byte', note)


def run_name(table: str, corpus: Corpus, embedding: str) -> str:
  """The name of a cell's checkpoints and metrics in the workdir.

  It includes the tokenizer's fingerprint, so another tokenizer never resumes its checkpoints.
  """
  cell = name(tokenizer=corpus.label, embedding=embedding)
  return f'{table}/{cell},tokens={corpus.tokenizer.fingerprint[:12]}'


def measure(
  config: ConfigDict,
  run: Run,
  corpus: Corpus,
  rows: Rows,
  where: Mapping[str, Any],
  model: LanguageModel,
  embedding: str,
  chosen: Chosen,
) -> Scores:
  """Trains and scores the models of a cell.

  Args:
    config: of the recipe.
    run: its workdir has the checkpoints.
    corpus: the text in the tokens of the cell.
    rows: of a table, to which those of the cell are added.
    where: their coordinates.
    model: of its tokens.
    embedding: its name.
    chosen: learning rates of the cells so far, chosen by validation text, FLOPs of which do not
      count; that of a new kind of cell is added.
  """
  kind = corpus.family, embedding
  by_tokens = {'length': corpus.length, 'batch_size': corpus.batch_size}
  options = ConfigDict(
    corpus.options.to_dict() | by_tokens | {'steps': corpus.steps, 'evaluate_every': corpus.steps}
  )
  if kind in chosen:
    options.rates = (chosen[kind][0],)
  fitted = fit.fit(
    config,
    run,
    options,
    run_name(rows.table, corpus, embedding),
    model,
    corpus.batches,
    evaluations={'validation': corpus.validated},
    tokenizer=corpus.tokenizer,
  )
  rate, over = chosen.setdefault(kind, (fitted[0].rate, corpus.label))
  ids = [ids for ids, _ in corpus.test]
  score = lambda one: [nats.sum() for nats in one.model.id_loss(ids)]
  nats = np.stack([corpus.by_document(score(one)) for one in fitted])
  bits_of = lambda nats: stats.contributions(nats / np.log(2), corpus.test_bytes)
  scores = Scores(bits_of(nats), bits_of(corpus.unigram - nats), corpus.tokenizer.lossless)
  about = (
    f'{int(corpus.test_bytes.sum()):,} bytes of {corpus.test_bytes.size} held-out documents, in '
    f'examples of {options.example_bytes}'
  )
  rows.add(where, BITS, stats.crossed(scores.bits), 'bits/byte', about)
  about = 'the unigram less the model, over the same tokens'
  rows.add(where, GAIN, stats.crossed(scores.gain), 'bits/byte', about)
  fit.add_rate(rows, where, corpus.options, rate, over)
  rows.add(where, 'bytes_per_token', corpus.bytes_per_token, 'bytes/token')
  shares = decoders.train_shares(fitted)
  rows.add(where, 'mflops_per_byte', corpus.mflops(shares), 'MFLOP/byte')
  if shares:
    spent = corpus.training_flops(shares) * corpus.steps * corpus.step_bytes
    off = spent / (1e12 * options.teraflops) - 1
    rows.add(where, 'chunks_per_token', shares[0], note='in training')
    rows.add(where, 'teraflops_off', off, 'share', 'of the budget, by the chunks that there were')
  speed = float(np.median([*fitted[0].curve('tokens_per_second').values()]))
  about = f'in training, {min(options.side_by_side, options.seeds)} seeds together'
  rows.add(where, 'tokens_per_second', speed, 'tokens/s', about)
  if corpus.law is not None:
    regret = stats.crossed(bits_of(nats - corpus.law))
    about = 'less the law of the text, paired'
    rows.add(where, 'regret_bits_per_byte', regret, 'bits/byte', about)
  for seed, bits in enumerate(scores.bits, start=config.seed):
    one = stats.mean(bits, over='documents')
    rows.add({**where, 'seed': seed}, BITS, one, 'bits/byte')
  return scores


def add_law(rows: Rows, corpus: Corpus) -> None:
  """Adds the bits under the exact law of the text, the least that a model can have on average."""
  if corpus.law is not None:
    found = stats.ratio(corpus.law, corpus.test_bytes).times(1 / np.log(2))
    about = 'the n-gram law that wrote the text: the floor of all cells'
    rows.add({'model': 'law'}, 'law_bits_per_byte', found, 'bits/byte', about)


def _parameters(decoder: Decoder) -> int:
  """Parameters of the decoder, without embedding and LM head."""
  x, places = jnp.zeros((1, 1, decoder.dim)), jnp.zeros((1, 1), jnp.int32)
  shapes = jax.eval_shape(decoder.init, jax.random.key(0), x, places, places)['params']
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
