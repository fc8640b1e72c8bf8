# SPDX-License-Identifier: Apache-2.0
"""Table `noise_bytes`: bits per byte of text with noise, by models that were trained without it.

The kinds of noise are those of the paper's Table 3 that can be made by rule: bytes dropped, bytes
repeated two to four times, letters in random case, and all in capitals.
"""

from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from experiments.hierarchy import arms, chunking
from experiments.hierarchy.arms import Arm
from experiments.hierarchy.chunking import BITS
from experiments.recipe import Run, Table, text_of
from lib import stats
from lib.report.results import Rows

ABOVE_CLEAN = 'above_clean_bits_per_byte'
REFERENCES = ('byte_transformer', 'bpe')
Noise = Callable[[np.ndarray, np.random.Generator, float], np.ndarray]


def _drop(text: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
  kept = rng.random(text.size) >= share
  kept[0] = True  # a text has a byte
  return text[kept]


def _repeat(text: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
  times = np.where(rng.random(text.size) < share, rng.integers(2, 5, text.size), 1)
  return np.repeat(text, times)


def _capitals(text: np.ndarray, where: np.ndarray) -> np.ndarray:
  lower = (text >= ord('a')) & (text <= ord('z'))
  return np.where(lower & where, text - 32, text).astype(np.uint8)


KINDS: dict[str, Noise] = {
  'none': lambda text, rng, share: text,
  'drop': _drop,
  'repeat': _repeat,
  'random_case': lambda text, rng, share: _capitals(text, rng.random(text.size) < 0.5),
  'capitals': lambda text, rng, share: _capitals(text, np.ones(text.size, bool)),
}


def noisy(text: bytes, kind: str, rng: np.random.Generator, share: float) -> bytes:
  """The text with noise of a kind in a share of its bytes, at most as long as it was."""
  found = KINDS[kind](np.frombuffer(text, np.uint8), rng, share)
  return found[: len(text)].tobytes()


def measure(config: ConfigDict, run: Run) -> Rows:
  """The models of `chunking` on the test texts under each noise."""
  rows, options, chosen = Rows('noise_bytes'), config.noise_bytes, arms.Chosen()
  lost: dict[str, dict[Arm, np.ndarray]] = {kind: {} for kind in KINDS if kind != 'none'}
  for name in options.arms:
    trained = arms.train(config, run, arms.main_arm(config, name), chosen)
    corpus = trained.corpus
    plain = corpus.text['test'].texts
    clean: np.ndarray | None = None
    for kind in KINDS:
      rng = np.random.default_rng(config.seed)
      texts = [noisy(text, kind, rng, options.share) for text in plain]
      ids = [one.ids for one in corpus.tokenizer.cover_batch(texts)]
      of = lambda one, ids=ids: [nats.sum() for nats in one.model.id_loss(ids)]
      nats = np.stack([corpus.by_document(of(one)) for one in trained.fitted])
      sizes = corpus.by_document(np.array([*map(len, texts)], float))
      bits = stats.contributions(nats / np.log(2), sizes)
      where = {**trained.arm.where, 'noise': kind}
      rows.add(where, BITS, stats.crossed(bits), 'bits/byte')
      clean = bits if clean is None else clean
      if kind != 'none':
        lost[kind][trained.arm] = bits - clean
        more = stats.crossed(bits - clean)
        rows.add(where, ABOVE_CLEAN, more, 'bits/byte', 'paired by document')
  for kind, found in lost.items():
    chunking.add_differences(rows, found, REFERENCES, f'difference_{ABOVE_CLEAN}', noise=kind)
  return rows


TABLE = Table(
  'noise_bytes',
  measure,
  caption='Bits per byte of test texts with noise, by models that were trained on text without '
  'it: bytes dropped, bytes repeated, letters in random case, all letters capitals. The paper '
  'asks questions under such noise; this is about probabilities. `above_clean` is by how much the '
  'noise raises the bits of an arm, and a row with `less` is that less the same of another arm. ± '
  'is one standard error over seeds × documents.',
  shown=(BITS, ABOVE_CLEAN, f'difference_{ABOVE_CLEAN}'),
  check=arms.check,
  sources=text_of,
)
