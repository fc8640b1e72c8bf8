# SPDX-License-Identifier: Apache-2.0
"""My paper: python docs/examples/my_paper.py --config=docs/examples/my_paper.py --workdir=DIR"""

from configs import common
from experiments import runner
from lib.data import sources
from lib.evals import ngram
from lib.report.results import Row, name
from lib.tokenizers import Characters


def get_config(arg='cpu'):
  config = common.base(*common.parse(arg, ('orders',)))
  config.data, config.orders = {'source': 'stdlib/prose'}, (0, 1, 2)
  return config


def orders(config, run):
  text = [sources.open_source(config.data.source, split) for split in ('train', 'test')]
  found = ngram.token_loss(Characters(), *(sources.sample(t, 200_000) for t in text), config.orders)
  return [Row.of('orders', name(m=m), 'nats', loss) for m, loss in zip(config.orders, found)]


if __name__ == '__main__':
  runner.main(runner.Recipe(
    name='my_paper', title='My paper', tables={'orders': orders},
    captions={'orders': 'Nats a byte of models with m bytes of context.'}, summary={},
    check=lambda config: None, plots=lambda *_: [], facts=lambda config: {},
  ))  # fmt: skip
