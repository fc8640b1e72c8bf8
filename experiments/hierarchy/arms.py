# SPDX-License-Identifier: Apache-2.0
"""The models that are compared, and their training at equal FLOPs and equal bytes of context.

An arm is a name and its variation, such as Arm('hnet', 5). FLOPs are those of
`experiments.decoders`, and known once a hierarchy is trained. Its steps are therefore set by a
guess; where the FLOPs of its seeds are not within `CLOSE` of `training.teraflops`, it is trained
again, at most `training.rounds` times in all, and the training that came closest is used.
The training of the router's model of `entropy` counts. The choice of a learning rate does not.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import coders, decoders, equal_flops, fit
from experiments.fit import Fitted
from experiments.hierarchy import cuts
from experiments.hierarchy.cuts import Cuts
from experiments.recipe import Run, TrainSpec, TrainSpecs, naming
from lib import language_model, tokenizers
from lib.data import excerpts, own_files
from lib.data.examples import Examples
from lib.embeddings.learned import Learned
from lib.errors import InputError
from lib.models.decoder import Decoder, LanguageModel
from lib.models.hierarchy import Hierarchy
from lib.models.recurrence import RecurrentDecoder
from lib.models.routers import Cosine, Entropy, Marked, Spaces, Stride, entropy, spacelike
from lib.parallel.mesh import batch_devices
from lib.parameters import path_name
from lib.report.results import name as name_of
from lib.tokenizers.base import Tokenizer
from lib.tokenizers.token_ends import ENDS, TokenEnds
from lib.train.experiment import Variables

CLOSE = 0.02  # of the FLOPs of training
SPACES = spacelike(bytes([i]) for i in range(256))
LEARNED = ('hnet', 'two_stages')  # whose cuts change in training
MARKED = {'spaces': SPACES, 'bpe_ends': ENDS}  # whose cuts are a rule about ids
HIERARCHIES = (*LEARNED, *MARKED, 'stride', 'entropy')
Chosen = dict['Arm', float]  # arm -> its learning rate


@dataclasses.dataclass(frozen=True)
class Arm:
  """A kind of model.

  Attributes:
    name: of `configs.hierarchy.ARMS`.
    target: N of an H-Net's one stage, 0 for others.
    without: what an ablation changes, one of `configs.hierarchy.ABLATIONS`, or ''.
  """

  name: str
  target: int = 0
  without: str = ''

  @property
  def where(self) -> dict[str, Any]:
    """Its coordinates in tables."""
    more = {'target': self.target} if self.target else {}
    return {'arm': self.name} | more | ({'without': self.without} if self.without else {})


def every(config: ConfigDict, names: Sequence[str]) -> list[Arm]:
  """The arms of some names; an H-Net for each target."""
  return [
    Arm(name, target)
    for name in names
    for target in (config.router.targets if name == 'hnet' else [0])
  ]


def main_arm(config: ConfigDict, name: str) -> Arm:
  """The arm of a name; of H-Nets that with `router.target`."""
  return Arm(name, config.router.target if name == 'hnet' else 0)


def tokenizer_of(config: ConfigDict, run: Run, arm: Arm) -> Tokenizer:
  """Bytes, with marks where BPE tokens end for `bpe_ends`, or BPE within words."""
  if arm.name not in ('bpe', 'bpe_ends'):
    return tokenizers.train('bytes', [], 256)
  text = lambda: excerpts_of(config, 'train').texts
  learn = lambda: tokenizers.train('bpe', text(), config.subwords.vocab_size)
  bpe = coders.kept(run, f'bpe-v{config.subwords.vocab_size}', learn)
  return bpe if arm.name == 'bpe' else TokenEnds(bpe)


def model(config: ConfigDict, arm: Arm, vocab_size: int | None = None) -> LanguageModel:
  """The untrained model of an arm."""
  vocab_size = vocab_size or (512 if arm.name == 'bpe_ends' else 256)
  dtype = fit.dtype(config)
  decoder: Any
  if arm.name in HIERARCHIES:
    decoder = _hierarchy(config, arm)
  elif arm.name == 'byte_recurrent':
    decoder = decoders.recurrent(config.recurrent, dtype)
  else:
    options = config.subwords if arm.name == 'bpe' else config.bytes
    decoder = fit.make_decoder(options, dtype)
  return LanguageModel(Learned(vocab_size, decoder.dim, tied=False, dtype=dtype), decoder)


def _hierarchy(config: ConfigDict, arm: Arm) -> Hierarchy:
  dtype, options, dim = fit.dtype(config), config.router, config.outer.dim
  inner, outer = fit.make_decoder(config.inner, dtype), _outer(config, arm, dtype)
  stage = functools.partial(decoders.hierarchy, options, without=arm.without)
  if arm.name == 'two_stages':
    middle, (first, second) = decoders.recurrent(config.middle, dtype), options.targets_of_two
    return stage(outer, Cosine(dim), stage(middle, Cosine(middle.dim), inner, second), first)
  router = {
    'hnet': lambda: Cosine(dim),
    'spaces': lambda: Spaces(SPACES),
    'bpe_ends': lambda: Marked(ENDS),
    'stride': lambda: Stride(options.stride),
    'entropy': lambda: Entropy(_small(config)),
  }[arm.name]()
  return stage(outer, router, inner, 0 if arm.without == 'no_ratio_loss' else arm.target)


def _small(config: ConfigDict) -> LanguageModel:
  """The model of bytes whose entropies say where chunks begin."""
  return model(
    ConfigDict({'dtype': config.dtype, 'recurrent': config.entropy}), Arm('byte_recurrent')
  )


def _outer(config: ConfigDict, arm: Arm, dtype: Any) -> Decoder | RecurrentDecoder:
  options = config.outer
  kind = arm.without if arm.without in ('convolution', 'attention') else options.kind
  if kind != 'attention':
    return decoders.recurrent(options, dtype, kind)
  return Decoder(
    layers=options.layers, dim=options.dim, heads=options.heads, mlp_dim=options.dim,
    position='rotary', norm='rms', init_std=None, window=options.window, remat=options.remat,
    dtype=dtype,
  )  # fmt: skip


def excerpts_of(config: ConfigDict, split: str) -> excerpts.Excerpts:
  """The text of a split in examples of `training.example_bytes`, the same for every arm."""
  return equal_flops.examples(config, config.training, split)


def examples(config: ConfigDict, run: Run, tokenizer: Tokenizer) -> Examples:
  """The text of all splits as tokens."""
  text = {split: excerpts_of(config, split) for split in own_files.SPLITS}
  encode = lambda texts: coders.encode(run, tokenizer, texts, known=True)
  devices, documents = batch_devices(run.mesh), equal_flops.stream(config, config.training)
  return Examples(tokenizer, text, encode, config.training.batch_bytes, devices, documents)


@dataclasses.dataclass(frozen=True)
class Trained:
  """The models of an arm, one for each seed.

  Tables that need the same arm train it once: what is trained is read from the workdir.

  Attributes:
    arm: which.
    fitted: the models.
    corpus: the text in their tokens.
    teraflops: of the training of one seed, its router's model included.
  """

  arm: Arm
  fitted: list[Fitted]
  corpus: Examples
  teraflops: float

  def cuts(self) -> list[Cuts]:
    """Where the hierarchy of each seed cuts the test texts."""
    bos, ids = self.corpus.tokenizer.vocab_size, np.stack([ids for ids, _ in self.corpus.test])
    return [cuts.cut(one.model.module, one.variables, bos, ids) for one in self.fitted]


def train(config: ConfigDict, run: Run, arm: Arm, chosen: Chosen) -> Trained:
  """The models of an arm, trained now or read from the workdir.

  Args:
    config: of the recipe.
    run: its workdir keeps the models.
    arm: which.
    chosen: learning rates so far, chosen by validation text; that of `arm` is added. Hierarchies
      share that of the H-Net with `router.target`, which is trained first.
  """
  like = main_arm(config, 'hnet') if arm.name in HIERARCHIES else arm
  if len(config.training.rates) > 1 and like not in chosen and like != arm:
    train(config, run, like, chosen)
  corpus = examples(config, run, tokenizer_of(config, run, arm))
  options, length = config.training, corpus.context
  budget, initial = options.teraflops * 1e12, None
  router_training = router_pass = 0.0  # FLOPs of the router's model: in all, and for each token
  if arm.name == 'entropy':
    small = _small(config)
    router_pass = decoders.flops(small, length)
    initial, router_training = _trained_router(config, run, corpus, small)
  elif arm.name in HIERARCHIES and config.inner.initial:
    initial = inner_from(config, 2 if arm.name == 'two_stages' else 1)
  made = model(config, arm, corpus.tokenizer.vocab_size)

  def step_flops(shares: Sequence[float]) -> float:
    """Of a training step; the model of a router has no backward pass."""
    forward = decoders.flops(made, length, shares)
    return (3 * forward - 2 * router_pass) * corpus.tokens_per_byte * corpus.step_bytes

  steps_of = lambda cost: max(1, round((budget - router_training) / cost))
  cost = step_flops(_guess(config, arm, corpus))
  rates = (chosen[like],) if like in chosen else options.rates
  tried: list[Trained] = []
  for _ in range(options.rounds):
    steps = steps_of(cost)
    fitted = _fit(config, run, arm, made, corpus, steps, rates, initial)
    rates = (fitted[0].rate,)
    cost = step_flops(decoders.train_shares(fitted))
    spent = router_training + cost * steps
    tried.append(Trained(arm, fitted, corpus, spent / 1e12))
    if abs(spent - budget) <= CLOSE * budget or steps_of(cost) == steps:
      break
  chosen[like] = rates[0]
  return min(tried, key=lambda one: abs(one.teraflops - options.teraflops))


def _guess(config: ConfigDict, arm: Arm, corpus: Examples) -> list[float]:
  """Tokens of each stage that begin a chunk, before anything is trained."""
  router = config.router
  if arm.name in MARKED:
    guess = [share_marked(arm, corpus)]
  elif arm.name in LEARNED:
    targets = router.targets_of_two if arm.name == 'two_stages' else [arm.target]
    guess = [decoders.learned_share(target) for target in targets]
  else:
    guess = [1 / router.stride] if arm.name in HIERARCHIES else []
  return [min(one, router.room) for one in guess]


def share_marked(arm: Arm, corpus: Examples) -> float:
  """Bytes of the training text that begin a chunk by the rule of an arm of MARKED."""
  begins = 0
  for ids, _ in corpus.train:
    marks = np.isin(ids[:-1], MARKED[arm.name])  # the last is not read
    if arm.name == 'spaces':
      marks[1:] &= ~marks[:-1]
    begins += 1 + marks.sum()  # 1: BOS
  return begins / corpus.train.counts.sum()


def options_of(
  config: ConfigDict, arm: Arm, length: int, batch_size: int, steps: int, **more: Any
) -> ConfigDict:
  """The section that `experiments.fit` trains an arm by; only hierarchies have `stage_rates`."""
  if arm.name not in HIERARCHIES:
    more['stage_rates'] = ()
  points = max(1, steps // config.training.points)
  by_bytes = {
    'length': length, 'batch_size': batch_size, 'steps': steps, 'evaluate_every': points,
  }  # fmt: skip
  return ConfigDict(config.inner.to_dict() | config.training.to_dict() | by_bytes | more)


def _fit(config, run, arm, made, corpus, steps, rates, initial) -> list[Fitted]:
  options = options_of(config, arm, corpus.length, corpus.batch_size, steps, rates=rates)
  name = f'arms/{name_of(**arm.where)},steps={steps}'
  scores = {'cuts': functools.partial(cuts.of_validation, made, corpus)}
  return fit.fit(
    config, run, options, name, made, corpus.batches,
    evaluations={'validation': corpus.validated},
    scores=scores if arm.name in HIERARCHIES else {},
    tokenizer=corpus.tokenizer, initial=initial,
  )  # fmt: skip


def _trained_router(
  config: ConfigDict, run: Run, corpus: Examples, small: LanguageModel
) -> tuple[fit.Initial, float]:
  """Trains the models of `entropy`'s router, one for each seed.

  Returns:
    What the training of a seed starts from, with its model and the entropy that one in
    `router.stride` bytes exceeds; the FLOPs of the training of one model.
  """
  step_flops = 3 * decoders.flops(small, corpus.context) * corpus.step_bytes
  budget = config.entropy.share * config.training.teraflops * 1e12
  steps = max(1, round(budget / step_flops))
  options = options_of(
    config, Arm('byte_recurrent'), corpus.length, corpus.batch_size, steps, evaluate_every=steps
  )
  fitted = fit.fit(
    config, run, options, f'arms/entropy_model,steps={steps}', small, corpus.batches,
    evaluations={'validation': corpus.validated}, tokenizer=corpus.tokenizer,
  )  # fmt: skip
  texts = np.stack([ids for (ids, _), _ in zip(corpus.validation, range(cuts.TOGETHER))])
  inputs = np.insert(texts, 0, corpus.tokenizer.vocab_size, axis=1)[:, :-1]

  def initial(seed: int, variables: Variables) -> Variables:
    one = fitted[seed - config.seed].model
    found = np.asarray(entropy(jnp.asarray(one.logits(inputs))))
    threshold = np.float32(np.quantile(found, 1 - 1 / config.router.stride))
    router = {'router': {'model': one.variables['params'], 'threshold': threshold}}
    new = variables['params']
    return {**variables, 'params': new | {'decoder': new['decoder'] | router}}

  return initial, steps * step_flops


def inner_from(config: ConfigDict, stages: int) -> fit.Initial:
  """Training that starts with the decoder of a trained model as the network over the chunks."""
  decoder = language_model.load(config.inner.initial).variables['params']['decoder']

  def put(params: Variables, depth: int) -> Variables:
    return {**params, 'inner': put(params['inner'], depth - 1)} if depth else decoder

  def initial(seed: int, variables: Variables) -> Variables:
    params = variables['params']
    return {**variables, 'params': {**params, 'decoder': put(params['decoder'], stages)}}

  return initial


def train_specs(config: ConfigDict, arms: Sequence[Arm]) -> TrainSpecs:
  """The models of bytes, whose sizes do not depend on text."""
  options = config.training
  length = options.example_bytes
  rows = equal_flops.rows(options, length)
  return {
    name_of(**arm.where): functools.partial(_spec, config, arm, length, rows)
    for arm in arms
    if arm.name != 'bpe'
  }


def _spec(config: ConfigDict, arm: Arm, length: int, rows: int) -> TrainSpec:
  return fit.train_spec(options_of(config, arm, length, rows, 1), model(config, arm))


def check(config: ConfigDict) -> None:
  """Raises InputError for models that cannot be built, or text that is too short."""
  training = config.training.to_dict() | {'steps': 1, 'batch_size': 1}
  fit.check(ConfigDict(config.inner.to_dict() | training | {'head_dim': 2}), 'training')
  for where in ('inner', 'bytes', 'subwords'):
    fit.check(ConfigDict(config[where].to_dict() | training), where)
  options, router = config.training, config.router
  if config.inner.initial:
    _check_inner(config)
  if config.inner.dim < config.outer.dim:
    raise InputError(
      f'inner.dim must be at least outer.dim, {config.outer.dim}; got {config.inner.dim}.'
    )
  if not config.outer.dim <= config.middle.dim <= config.inner.dim:
    raise InputError(
      f'middle.dim must be from outer.dim to inner.dim, {config.outer.dim} to {config.inner.dim}; '
      f'got {config.middle.dim}.'
    )
  if config.outer.dim % (2 * config.outer.heads):
    raise InputError(
      f'outer.dim must be an even multiple of outer.heads, {config.outer.heads}; got '
      f'{config.outer.dim}.'
    )
  if len(router.targets_of_two) != 2:
    raise InputError(f'router.targets_of_two must be two numbers; got {router.targets_of_two}.')
  smallest = min(*router.targets, router.target, router.stride, *router.targets_of_two)
  decoders.check_room('router', router.room, smallest)
  if router.room**2 * options.example_bytes < 2:
    raise InputError(
      f'training.example_bytes must leave two stages of router.room = {router.room} at least two '
      f'chunks; got {options.example_bytes}.'
    )
  equal_flops.check_text(config, options, 'training')
  read = options.teraflops * 1e12 / (3 * _cheapest(config))
  with naming('training.teraflops and training.train_bytes'):
    equal_flops.check_epochs(config, options, read)


def _cheapest(config: ConfigDict) -> float:
  """FLOPs per byte of the forward pass of the smallest model, approximately.

  It is the hierarchy with the longest chunks, or the model of BPE tokens.
  """
  router = config.router
  weights = lambda options: 12 * options.layers * options.dim**2
  longest = max(*router.targets, router.target, router.stride, np.prod(router.targets_of_two))
  outer = weights(config.outer)  # two networks, each of half the weights of a Transformer
  chunked = outer + weights(config.inner) / longest
  return 2 * min(chunked, weights(config.subwords) / equal_flops.BYTES_A_TOKEN)


def _check_inner(config: ConfigDict) -> None:
  """Raises InputError for a trained model that is not a network over the chunks."""
  with naming('inner.initial'):
    given = language_model.load(config.inner.initial).variables['params']['decoder']
  module = fit.make_decoder(config.inner, fit.dtype(config))
  x, ones = jnp.zeros((1, 1, module.dim)), jnp.ones((1, 1), jnp.int32)
  wanted = jax.eval_shape(module.init, jax.random.key(0), x, ones, ones)['params']
  shapes = lambda tree: {
    path_name(p): x.shape for p, x in jax.tree_util.tree_leaves_with_path(tree)
  }
  if shapes(given) != shapes(wanted):
    raise InputError(
      f'inner.initial: the decoder of {config.inner.initial} has other layers or widths than inner '
      'says: make the fields of inner those of its training.'
    )
