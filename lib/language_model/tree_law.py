# SPDX-License-Identifier: Apache-2.0
"""The laws of the next token at many nodes of known texts, read together.

The nodes of a text (`lib.decoding.byte_view`) are a tree of tokens. A row of a batch holds nodes of
one window and what they follow, and each token sees the tokens before it in the tree. What a node
sees of a long text is what `TrainedModel.token_loss` shows it (`lib.language_model.scoring`), by
its number of tokens.

Legend: B rows, N nodes of a row, K nodes of it whose laws are asked for, V vocabulary.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib.decoding.byte_view import Node
from lib.errors import InputError
from lib.language_model.scoring import power_of_two
from lib.language_model.trained_model import TrainedModel, draws_rows
from lib.models.decoder import LanguageModel

NODES = 512  # of a row whose laws are asked for, at most
LOGITS = 1 << 23  # of a batch
SHORTEST = 16


class Laws(NamedTuple):
  """The laws at some nodes of a text.

  Attributes:
    text: its number.
    nodes: n of them.
    weights: of the next token, not scaled, float32 [n, V].
  """

  text: int
  nodes: Sequence[Node]
  weights: np.ndarray


class _Row(NamedTuple):
  text: int
  start: int  # tokens before the window
  nodes: list[Node]  # parents before children
  wanted: list[int]  # numbers of nodes


def check(model: TrainedModel) -> None:
  """Raises InputError for a model that does not say how likely a text is from its first byte."""
  if model.bos is None:
    raise InputError('this model has no BOS token: it says nothing about the first bytes.')
  if draws_rows(model):
    raise InputError('the embedding of this model draws its rows: it has no one law of bytes.')


def window(depth: int, context: int) -> tuple[int, int]:
  """The window in which a node of `depth` tokens predicts: its number, and its first token."""
  step = max(1, context // 2)
  number = 0 if depth < context else (depth - context) // step + 1
  return number, number * step


def laws(
  model: TrainedModel, asked: Sequence[Sequence[Node]], embedding_rows: Any = None
) -> Iterator[Laws]:
  """The laws at nodes of each text, in no order.

  Args:
    model: of the texts.
    asked: nodes of each text, parents before children.
    embedding_rows: what the embedding draws for one text, if it draws.
  """
  several = [row for text, nodes in enumerate(asked) for row in _rows(model, text, nodes)]
  groups: dict[tuple[int, int], list[_Row]] = {}
  for row in several:
    shape = _size(len(row.nodes)), _size(len(row.wanted))
    groups.setdefault(shape, []).append(row)
  for (length, wanted), rows in sorted(groups.items()):
    most = max(1, LOGITS // (wanted * model.module.embedding.vocab_size))
    most = 1 << (most.bit_length() - 1) if embedding_rows is None else 1
    for begin in range(0, len(rows), most):
      part = rows[begin : begin + most]
      found = _read(model, part, min(most, power_of_two(len(part))), length, wanted, embedding_rows)
      for row, weights in zip(part, found):
        nodes = [row.nodes[i] for i in row.wanted]
        yield Laws(row.text, nodes, weights[: len(nodes)])


def _size(count: int) -> int:
  return max(SHORTEST, power_of_two(count))


def _rows(model: TrainedModel, text: int, asked: Sequence[Node]) -> Iterator[_Row]:
  """Rows that read all nodes that are asked for, in their windows."""
  by_window: dict[int, list[Node]] = {}
  for node in asked:  # a text without BOS begins with its own first token
    start = window(node.depth - (model.bos is None), model.context)[1] + (model.bos is None)
    by_window.setdefault(start, []).append(node)
  for start, nodes in by_window.items():
    if model.module.decoder.reads_mask:
      parts = [nodes[begin : begin + NODES] for begin in range(0, len(nodes), NODES)]
    else:  # a token follows the one before it in the row
      parts = _paths(nodes)
    for part in parts:
      number: dict[Node, int] = {}
      for node in part:
        path = []
        one: Node | None = node
        while one is not None and one.depth >= start and one not in number:
          path.append(one)
          one = one.parent
        number |= {one: len(number) + i for i, one in enumerate(reversed(path))}
      yield _Row(text, start, [*number], [number[node] for node in part])


def _paths(nodes: Sequence[Node]) -> list[list[Node]]:
  """The nodes as paths, on each of which a node follows the one before it."""
  found: list[list[Node]] = []
  for node in nodes:
    if found and node.parent is found[-1][-1]:
      found[-1].append(node)
    else:
      found.append([node])
  return found


def _read(
  model: TrainedModel, rows: Sequence[_Row], batch: int, length: int, count: int, drawn: Any
) -> np.ndarray:
  """Unscaled probabilities [B, K, V] of the next token at the nodes that rows ask for."""
  ids, places = (np.zeros((batch, length), np.int32) for _ in range(2))
  mask = np.zeros((batch, length, length), bool)
  mask[:, :, 0] = True  # padding sees something
  wanted = np.zeros((batch, count), np.int32)
  for row, one in enumerate(rows):
    size = len(one.nodes)
    ids[row, :size] = [node.token if node.depth else model.first_id for node in one.nodes]
    places[row, :size] = [node.depth - one.start for node in one.nodes]
    number = {node: i for i, node in enumerate(one.nodes)}
    for i, node in enumerate(one.nodes):
      mask[row, i] = mask[row, number[node.parent]] if node.parent in number else False
      mask[row, i, i] = True
    wanted[row, : len(one.wanted)] = one.wanted
  with model.on_mesh():
    found = _weights(model.module)(model.variables, ids, places, mask, wanted, drawn)
  return np.asarray(found)


@functools.cache
def _weights(module: LanguageModel) -> Any:
  """(variables, ids, places, mask, wanted, rows) -> [B, K, V]; compiled once for each module."""

  def logits(bound, ids, places, mask, wanted, rows):
    hidden, _ = bound.extend(ids, places, mask, bound.decoder.empty_cache(*ids.shape), rows)
    hidden = jnp.take_along_axis(hidden, wanted[..., None], axis=1)
    return bound.embedding.logits(hidden, rows)

  @jax.jit
  def weights(variables: Mapping[str, Any], *args: Any) -> jax.Array:
    found: Any = module.apply(variables, *args, method=logits)
    found = found.astype(jnp.float32)
    return jnp.exp(found - found.max(axis=-1, keepdims=True))

  return weights
