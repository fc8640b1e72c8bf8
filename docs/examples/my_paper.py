# SPDX-License-Identifier: Apache-2.0
"""My paper: python docs/examples/my_paper.py --config=docs/examples/my_paper.py --workdir=DIR"""

from configs import common
from experiments import runner
from experiments.recipe import Recipe, Table, text_of
from lib.data import sources
from lib.evals import ngram
from lib.report.results import Rows
from lib.tokenizers.characters import Characters


def get_config(arg='cpu'):
  orders = common.Field((0, 1, 2), least=0)
  return common.build(arg, ('orders',), {'data': {'source': 'stdlib/prose'}, 'orders': orders})


def measure(config, run):
  rows, text = Rows('orders'), {}
  for split in ('train', 'test'):
    text[split] = sources.sample(sources.open_source(config.data.source, split), 200_000)
  for m, loss in zip(config.orders, ngram.token_loss(Characters(), *text.values(), config.orders)):
    rows.add({'m': m}, 'nats', loss, 'nats/byte')
  return rows


ORDERS = Table('orders', measure, 'Models with m bytes of context.', ('nats',), sources=text_of)

if __name__ == '__main__':
  runner.main(Recipe('my_paper', 'My paper', [ORDERS]))
