# SPDX-License-Identifier: Apache-2.0
"""How a text begins that continues a prompt: tokens that cover it, sampled among all that do.

A prompt may end anywhere, also inside a token or a character. Its own tokens would imply that the
text ends there. Each text that begins with the prompt has one cover of it
(`lib.tokenizers.covers`); so a cover is sampled by its probability, and more tokens follow it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib.decoding import sampling
from lib.decoding.byte_view import Node, Tree, Vocabulary
from lib.decoding.sampling import Sampling
from lib.errors import InputError
from lib.language_model import tree_law
from lib.language_model.scoring import power_of_two
from lib.language_model.trained_model import TrainedModel

FIRST = 2**31 - 1  # folded into a text's key, gives the key of its cover


class Cover(NamedTuple):
  """Tokens whose bytes begin with a prompt.

  Attributes:
    node: all of them, or all but the last.
    token: the last, which goes beyond the prompt; −1 for a node that ends with it.
    log_probability: relative to the other covers of the prompt.
  """

  node: Node
  token: int
  log_probability: float


def covers(
  model: TrainedModel, known: Vocabulary, prompts: Sequence[bytes], rows: Any = None
) -> list[list[Cover]]:
  """All covers of each prompt.

  Args:
    model: of the texts.
    known: its vocabulary.
    prompts: any bytes.
    rows: what the embedding draws for one text, if it draws.

  Raises:
    InputError: no tokens cover a prompt, or the first token is not certain and the model has no
      BOS token.
  """
  assert model.tokenizer is not None
  trees = []
  for prompt in prompts:
    try:
      start = known.settled(*map(np.ndarray.tolist, model.tokenizer.cover(prompt)))
    except InputError:  # bytes that only the tokens of longer texts have
      start = known.root
    trees.append(known.tree(prompt, start))
  asked = [_uncertain(tree, prompt) for tree, prompt in zip(trees, prompts, strict=True)]
  for tree, nodes in zip(trees, asked, strict=True):
    if model.bos is None and not (nodes[0] if nodes else tree.trunk()).depth:
      raise InputError(
        'this model has no BOS token: a prompt must have a token that nothing changes.'
      )
  laws: list[dict[Node, np.ndarray]] = [{} for _ in prompts]
  for part in tree_law.laws(model, asked, rows):
    for node, row in zip(part.nodes, part.weights, strict=True):
      with np.errstate(divide='ignore'):
        laws[part.text][node] = np.log(row / row.sum(dtype=np.float64))
  return [
    _of_tree(known, prompt, tree, law)
    for prompt, tree, law in zip(prompts, trees, laws, strict=True)
  ]


def _uncertain(tree: Tree, prompt: bytes) -> list[Node]:
  """The nodes whose laws tell covers apart, parents before children."""
  trunk, found = tree.trunk(), set()
  for number in tree.live:
    node: Node | None = tree.nodes[number]
    while node is not None and node.depth >= trunk.depth:
      found.add(node)
      node = node.parent
  return [node for node in tree.nodes if node in found and node.place < len(prompt)]


def _of_tree(
  known: Vocabulary, prompt: bytes, tree: Tree, law: dict[Node, np.ndarray]
) -> list[Cover]:
  weights = {tree.trunk(): 0.0}
  found = []
  for node in tree.nodes:
    if node.parent in weights and node.parent in law:
      weights[node] = weights[node.parent] + float(law[node.parent][node.token])
  for node in map(tree.nodes.__getitem__, tree.live):
    held = prompt[node.place :]
    if not held:
      found.append(Cover(node, -1, weights[node]))
      continue
    first, last = known.words.interval(held)
    first += len(known.words.exact(held))
    places = first + np.flatnonzero(known.allowed(node.state)[first:last])
    found += [
      Cover(node, token, weights[node] + float(law[node][token]))
      for token in known.words.order[places].tolist()
    ]
  return found


def begin(
  model: TrainedModel, known: Vocabulary, prompts: Sequence[bytes], keys: jax.Array, how: Sampling,
  rows: Any = None,
) -> list[tuple[list[int], bytes]]:  # fmt: skip
  """A sampled cover of each prompt: its tokens, BOS first, and the bytes beyond the prompt.

  Args:
    model: of the texts.
    known: its vocabulary.
    prompts: any bytes.
    keys: random keys [B], one for each prompt.
    how: temperature, top-k and top-p, with a cover in the place of a token.
    rows: what the embedding draws for one text, if it draws.

  Raises:
    InputError: as `covers`.
  """
  how.check()
  found = []
  several = covers(model, known, prompts, rows)
  keys = jax.vmap(lambda key: jax.random.fold_in(key, FIRST))(keys)
  for prompt, options, key in zip(prompts, several, keys, strict=True):
    scores = np.full(power_of_two(len(options)), -np.inf, np.float32)
    scores[: len(options)] = [one.log_probability for one in options]
    chosen = options[int(_sample(scores, key, how))]
    ids = [*([] if model.bos is None else [model.bos]), *chosen.node.ids()]
    beyond = b''
    if chosen.token >= 0:
      ids.append(chosen.token)
      beyond = known.words.pieces[chosen.token][len(prompt) - chosen.node.place :]
    found.append((ids, beyond))
  return found


@jax.jit
def _sample(scores: jax.Array, key: jax.Array, how: Sampling) -> jax.Array:
  """The number of one of the scores [n], unscaled log-probabilities, sampled."""
  logs = sampling.log_probabilities(scores[None], jnp.isfinite(scores)[None], how)[0]
  return jnp.argmax(logs + jax.random.gumbel(key, logs.shape))
