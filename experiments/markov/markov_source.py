# SPDX-License-Identifier: Apache-2.0
"""The Markov source of a config, and plots over sizes of dictionaries."""

from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from experiments.recipe import naming
from lib.errors import InputError
from lib.report import plots
from lib.report.results import Row
from lib.tasks.markov import chains

PER_CHAR = 'nats per character'


def make_source(config: ConfigDict, order: int, p: float | None = None) -> chains.MarkovSource:
  """The source of a config at one order; `p` overrides both switching probabilities."""
  both = {} if p is None else {'p': p, 'q': p}
  return chains.make(order, config.seed, **config.source.to_dict() | both)


def probabilities(config: ConfigDict, given: Sequence[float]) -> Sequence[float | None]:
  """The switching probabilities p = q of a table; None for a source without them."""
  return given if config.source.kind == 'switching' else (None,)


def check(config: ConfigDict, sizes: Sequence[int] = (), field: str = '') -> None:
  """Raises InputError for sources, or sizes of dictionaries in a field, that are invalid."""
  for k in config.orders:
    with naming('orders'):
      letters = make_source(config, k).alphabet_size
    if sizes and min(sizes) < letters:
      raise InputError(
        f'{field}: a dictionary of {min(sizes)} tokens cannot hold {letters} characters.'
      )


def levels(source: chains.MarkovSource) -> dict[str, float]:
  """Reference levels in plots of losses on a source."""
  return {'entropy rate H∞': source.entropy_rate, 'character unigram': source.ngram_loss(0)}


def over_sizes(
  title: str, y_label: str, found: Mapping[str, Sequence[Row]], levels: Mapping[str, float]
) -> list[plots.Panel]:
  """A panel of rows by label over their dictionary sizes d, or none where there are no rows."""
  points = {
    label: [(float(row.where['d']), row) for row in some] for label, some in found.items() if some
  }
  x_label = 'dictionary size d (tokens)'
  panel = plots.row_curves(title, x_label, y_label, points, levels=levels, log_x=True)
  return [panel] if points else []
