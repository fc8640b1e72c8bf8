# SPDX-License-Identifier: Apache-2.0
"""Table `noise_anchor`: how similar two spaces of rows must be for a donor to help, and how similar
those of trained models are.

Rows of both spaces are linear images of the same latent vectors, plus noise. A share of the rows
is hidden from the methods, which then predict them from the donor's.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments.recipe import Pictures, Run, Table, naming
from experiments.transplant import replacement, scoring
from lib import stats
from lib.data import sources
from lib.errors import InputError
from lib.report import plots
from lib.report.results import Row, Rows, select
from lib.transplant import linear, sparse_codes

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
# (donor's anchors [S, d], base's anchors [S, D], donor's hidden rows [N, d]) -> rows [N, D]
PREDICTORS: Mapping[str, Predict] = {
  'omp8': lambda atoms, base, targets: sparse_codes.omp(targets, atoms, 8) @ base,
  'omp32': lambda atoms, base, targets: sparse_codes.omp(targets, atoms, 32) @ base,
  'ridge': linear.ridge,
  'procrustes': linear.similarity,
}
ATOMS = {'omp8': 8, 'omp32': 32}  # rows that are combined; left out where rows are narrower
HIDDEN = 0.2  # of the rows
SHORTER = 0.75  # width of the narrow model


def measure(config: ConfigDict, run: Run) -> Rows:
  """Predictions of hidden rows: along the synthetic axis, and between trained models."""
  options, rows = config.noise_anchor, Rows('noise_anchor')
  seeds = range(config.seed, config.seed + config.base.seeds)
  size = options.rows, options.latent, config.base.dim
  axis: dict[float, float] = {}
  for noise in options.noise:
    pairs = [synthetic(seed, noise, *size) for seed in seeds]
    for method, found in explained(pairs, config.seed).items():
      rows.add({'noise': noise, 'method': method}, 'share_explained', found, '', NOTE)
      if method == 'ridge':
        axis[noise] = found.value
  for pair, tables in trained_pairs(config, run).items():
    for method, found in explained(tables, config.seed).items():
      where = {'pair': pair, 'method': method}
      rows.add(where, 'share_explained', found, '', NOTE)
      if method == 'ridge':
        order = sorted(axis, key=axis.get)  # type: ignore[arg-type]
        at = np.interp(found.value, [axis[noise] for noise in order], order)
        note = 'of the synthetic axis, where ridge regression explains as much'
        rows.add({'pair': pair}, 'noise_over_signal', float(at), '', note)
  return rows


NOTE = 'of the variance of hidden rows; below 0: worse than their mean'


def check(config: ConfigDict) -> None:
  """Raises InputError for models that cannot be trained, a missing text, or too few rows."""
  replacement.check_own(config)
  with naming('noise_anchor.other'):
    sources.open_source(config.noise_anchor.other, 'train')
  for field, count in (
    ('noise_anchor.rows', config.noise_anchor.rows), ('old.vocab_size', config.old.vocab_size),
  ):  # fmt: skip
    if (shown := count - round(HIDDEN * count)) < config.base.dim:
      raise InputError(
        f'{field}: {shown} rows are not hidden, fewer than base.dim={config.base.dim}; give more.'
      )


def synthetic(
  seed: int, noise: float, count: int, latent: int, dim: int
) -> tuple[np.ndarray, np.ndarray]:
  """Donor and base [count, dim]: latent vectors under two linear maps, with noise."""
  rng = np.random.default_rng(seed)
  signal = rng.normal(size=(count, latent))
  made = []
  for _ in range(2):
    rows = signal @ rng.normal(size=(latent, dim)) / np.sqrt(latent)
    made.append(rows + noise * rng.normal(size=rows.shape))
  return made[0], made[1]


def explained(
  pairs: Sequence[tuple[np.ndarray, np.ndarray]], seed: int
) -> dict[str, stats.Estimate]:
  """Method -> share of the variance of hidden rows that it explains, over (donor, base) pairs."""
  found: dict[str, list[float]] = {}
  for donor, base in pairs:
    order = np.random.default_rng(seed).permutation(len(base))
    hidden, anchors = np.split(order, [round(HIDDEN * len(base))])
    apart = ((base[hidden] - base[anchors].mean(axis=0)) ** 2).sum()
    for method, predict in PREDICTORS.items():
      if ATOMS.get(method, 0) > min(donor.shape[1], len(anchors)):
        continue
      made = predict(donor[anchors], base[anchors], donor[hidden])
      found.setdefault(method, []).append(1 - ((made - base[hidden]) ** 2).sum() / apart)
  return {method: stats.mean(shares) for method, shares in found.items()}


def trained_pairs(config: ConfigDict, run: Run) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
  """Donor and base tables of models with one tokenizer that differ in seed, width or text."""
  tokenizer = scoring.old_tokenizer(config)
  prose = scoring.old_text(config)
  code = sources.open_source(config.noise_anchor.other, 'train')
  train = lambda name, documents, **changes: [
    one.model.embedding_tables().input.astype(np.float64)
    for one in scoring.train(config, run, f'transplant/{name}', tokenizer, documents, **changes)
  ]
  narrow = round(SHORTER * config.base.dim / config.base.heads / 2) * 2 * config.base.heads
  base = train('old', prose)
  donors = {
    'seeds': train('seeds', prose, another=scoring.ANOTHER),
    'widths': train('widths', prose, another=scoring.ANOTHER, dim=narrow),
    'texts': train('texts', code, another=scoring.ANOTHER, text=config.noise_anchor.other),
  }
  return {pair: list(zip(own, base, strict=True)) for pair, own in donors.items()}


def pictures(rows: Sequence[Row], config: ConfigDict, run: Run) -> Pictures:
  """The share explained against noise, with the pairs of trained models as levels."""
  points: dict[str, list[tuple[float, Row]]] = {}
  levels: dict[str, float] = {}
  for row in select(rows, 'noise_anchor', 'share_explained'):
    if 'noise' in row.where:
      points.setdefault(row.where['method'], []).append((float(row.where['noise']), row))
    elif row.where['method'] == 'ridge' and row.measured is not None:
      levels[f'trained models, other {row.where["pair"]}'] = row.measured
  panel = plots.row_curves(
    'Rows from a donor', 'noise over signal', 'share of the variance explained', points,
    levels=levels,
  )  # fmt: skip
  caption = 'How much of hidden rows a donor explains; trained models as levels (ridge regression).'
  return {'noise_anchor.png': plots.Picture(caption, [panel] if points else [])}


TABLE = Table(
  'noise_anchor',
  measure,
  'Rows of one space predicted from those of another, on rows that the methods have not seen. '
  '`noise`: both are linear images of the same latent vectors plus noise, relative to the signal. '
  '`pair`: two trained models over one tokenizer that differ in seed, width or text; '
  'noise_over_signal is where they lie on the synthetic axis.',
  ('share_explained', 'noise_over_signal'),
  check=check,
  pictures=pictures,
  sources=lambda config: (config.data.source, config.noise_anchor.other),
)
