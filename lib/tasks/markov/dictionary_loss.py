# SPDX-License-Identifier: Apache-2.0
"""The unigram loss of a dictionary on a Markov source, computed exactly instead of sampled.

Tokens and source context together form a finite chain. Its stationary law gives the frequency of
every token in an endless text, and the loss of the best unigram over tokens is (tokens per
character) * (entropy of those frequencies), in nats per character.

Each chain is solved up to scale, with the weight of one frequent state fixed to 1.

`dictionary_bound` is the paper's bound on good dictionaries (arXiv 2404.08335).
"""

import dataclasses
import math

import numba
import numpy as np
import scipy.sparse
from scipy.linalg import lu_factor, lu_solve
from scipy.sparse.linalg import splu
from scipy.special import entr

from lib.errors import InputError
from lib.tasks.markov.chains import MarkovSource
from lib.tokenizers.base import Dictionary
from lib.tokenizers.bpe import BPE


@dataclasses.dataclass(frozen=True)
class ExactUnigram:
  """The best unigram over tokens in an endless text, and its loss."""

  nats_per_char: float
  chars_per_token: float
  frequencies: np.ndarray  # [vocab_size], sums to 1


def exact_unigram(tokenizer: Dictionary, source: MarkovSource) -> ExactUnigram:
  """The exact loss of the best unigram over the tokens of a dictionary.

  Greedy longest match and fixed blocks work for any dictionary. Ordered merges solve a dense
  system with at least one row per token, so they are limited to a few thousand tokens.

  Raises:
    InputError: the encoder is 'minimal', or a symbol of the source is not a token.
  """
  if not set(source.alphabet) <= {piece[0] for piece in tokenizer.pieces if len(piece) == 1}:
    raise InputError(f'The dictionary needs each source symbol {source.alphabet!r} as a token.')
  if tokenizer.encoder == 'minimal':
    raise InputError(
      "The exact unigram loss knows the encoders 'greedy' and 'merges'; 'minimal' looks ahead "
      'without bound, so estimate its loss from a sample (lib/evals/ngram.py).'
    )
  if isinstance(tokenizer, BPE) and tokenizer.encoder == 'merges':
    rates = _merge_rates(tokenizer, source)
  else:
    rates = _greedy_rates(tokenizer, source)
  frequencies = rates / rates.sum()
  return ExactUnigram(
    nats_per_char=float(rates.sum() * entr(frequencies).sum()),
    chars_per_token=float(1 / rates.sum()),
    frequencies=frequencies,
  )


def _greedy_rates(tokenizer: Dictionary, source: MarkovSource) -> np.ndarray:
  """[vocab_size] tokens per character under greedy longest match.

  A state is (pending, context). The pending string, a node of the trie, is what was read after the
  last token that is certain: it may still grow into a longer token. Reading a symbol descends in
  the trie, or else emits tokens until what remains is in the trie.
  """
  children = np.ascontiguousarray(tokenizer.trie.children[:, tokenizer.symbols(source.alphabet)])
  order, parent, longest, fail, goto = _automaton(children, tokenizer.trie.token)
  node, context, successor = _recurrent(children, goto, source.next_contexts)
  step = source.kernel[context]
  rank = np.zeros(len(children), np.int64)
  rank[order] = np.arange(len(order))
  law = _stationary(successor, step, np.argsort(-rank[node]))
  flow = np.zeros(children.shape)
  np.add.at(flow, node, law[:, None] * step)
  return _emissions(flow, children, order, parent, longest, fail, tokenizer.vocab_size)


@numba.njit(cache=True, nogil=True)
def _automaton(children, token):
  """The greedy parser over trie nodes, in linear time by failure links as in Aho and Corasick.

  Returns nodes breadth first, each node's (parent, symbol), the longest token that begins it, the
  pending node that `fail` leaves once that token and those after it are emitted, and the pending
  node `goto` [nodes, A] after one more symbol.
  """
  nodes, size = children.shape
  order = np.zeros(nodes, np.int32)
  parent = np.zeros((nodes, 2), np.int32)
  longest = np.full(nodes, -1, np.int32)
  fail = np.zeros(nodes, np.int32)
  goto = np.zeros((nodes, size), np.int32)
  found = 1
  for i in range(nodes):
    if i == found:  # the rest spell symbols that the source lacks
      break
    node = order[i]
    above, symbol = parent[node]
    if token[node] >= 0:
      longest[node] = token[node]
    elif node != 0:
      longest[node] = longest[above]
      fail[node] = goto[fail[above], symbol]
    for s in range(size):
      child = children[node, s]
      goto[node, s] = child if child >= 0 else goto[fail[node], s]
      if child >= 0:
        parent[child, 0], parent[child, 1] = node, s
        order[found] = child
        found += 1
  return order[:found], parent, longest, fail, goto


@numba.njit(cache=True, nogil=True)
def _recurrent(children, goto, next_contexts):
  """The recurrent states: their nodes, contexts and successors [states, A].

  Reading symbol 0 repeatedly reaches the trie's longest run of 0 in context 0 from any start. So
  that state is recurrent, and the other recurrent states are those reachable from it.
  """
  nodes, size = goto.shape
  contexts = next_contexts.shape[0]
  index = np.full(nodes * contexts, -1, np.int32)
  states = np.zeros(nodes * contexts, np.int64)
  successor = np.zeros((nodes * contexts, size), np.int32)
  run = 0
  while children[run, 0] >= 0:
    run = children[run, 0]
  states[0] = run * contexts
  index[states[0]] = 0
  read, found = 0, 1
  while read < found:
    node, context = divmod(states[read], contexts)
    for s in range(size):
      after = goto[node, s] * contexts + next_contexts[context, s]
      if index[after] < 0:
        index[after] = found
        states[found] = after
        found += 1
      successor[read, s] = index[after]
    read += 1
  states = states[:found]
  return states // contexts, states % contexts, successor[:found]


def _stationary(successor: np.ndarray, step: np.ndarray, order: np.ndarray) -> np.ndarray:
  """[n] stationary law of a chain with moves [n, A], eliminating its states in this order.

  Leaves come first, for they link their parents to few others: so a trie's chain stays sparse.
  The last and shallowest state has its weight fixed.
  """
  count, size = successor.shape
  origin = np.repeat(np.arange(count), size)
  inflow = scipy.sparse.csc_array((step.ravel(), (successor.ravel(), origin)), (count, count))
  inflow = inflow[order][:, order]
  factors = splu(
    scipy.sparse.eye_array(count - 1, format='csc') - inflow[:-1, :-1],
    permc_spec='NATURAL',
    diag_pivot_thresh=0,
    options={'SymmetricMode': True},
  )
  law = np.ones(count)
  law[order[:-1]] = factors.solve(inflow[:-1, [-1]].toarray()[:, 0])
  return law / law.sum()


@numba.njit(cache=True, nogil=True)
def _emissions(flow, children, order, parent, longest, fail, vocab_size):
  """[vocab_size] tokens per character, given `flow` [nodes, A]: how often each reads each symbol.

  A symbol that leaves the trie emits the node's longest token, then the tokens on the way to its
  failure node, and there is read again. Deep nodes come first, as both lead to shallower ones.
  """
  rates = np.zeros(vocab_size)
  passing = np.zeros(len(flow))  # how often the tokens on the way to fail[node] are emitted
  for node in order[:0:-1]:
    for s in range(children.shape[1]):
      if children[node, s] < 0:
        rates[longest[node]] += flow[node, s]
        passing[node] += flow[node, s]
        flow[fail[node], s] += flow[node, s]
    if fail[node] != 0:  # that way is the parent's, then the symbol that made this node
      above, symbol = parent[node]
      passing[above] += passing[node]
      flow[fail[above], symbol] += passing[node]
  return rates


def _merge_rates(tokenizer: BPE, source: MarkovSource) -> np.ndarray:
  """[vocab_size] tokens per character under ordered merges.

  A token sequence is an encoding iff each pair of neighbours is one, so that tokens with their
  contexts form a transfer matrix: its entries are the next token's probability, 0 where the two
  cannot meet. Its leading eigenvalue is 1. The right eigenvector is the probability that the
  future text keeps the boundary, the left eigenvector that the past text does, and a token's
  frequency is proportional to their product.
  """
  chance, after = _spell(tokenizer.pieces, source)
  codes = np.arange(len(after))[:, None] * source.contexts + after
  states, state = np.unique(codes, return_inverse=True)
  token, context = np.divmod(states, source.contexts)
  transfer = np.zeros((len(states), len(states)))
  met = chance.T[context] * tokenizer.boundaries()[token]
  np.put_along_axis(transfer, state.reshape(after.shape).T[context], met, axis=1)
  past, future = _leading_eigenvectors(transfer)
  rates = np.bincount(token, past * future, minlength=len(after))
  return rates / (rates @ tokenizer.lengths)


def _leading_eigenvectors(transfer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The left and the right eigenvector of a nonnegative matrix whose leading eigenvalue is 1."""
  past, future = np.ones((2, len(transfer)))
  for _ in range(50):  # enough to find a state that matters
    past, future = past @ transfer / past.sum(), transfer @ future / future.sum()
  fixed = np.argmax(past * future)
  rest = np.delete(np.arange(len(transfer)), fixed)
  factors = lu_factor(np.eye(len(rest)) - transfer[np.ix_(rest, rest)])
  past[fixed] = future[fixed] = 1
  past[rest] = lu_solve(factors, transfer[fixed, rest], trans=1)
  future[rest] = lu_solve(factors, transfer[rest, fixed])
  if not abs(transfer[fixed] @ future - 1) < 1e-8:
    raise ArithmeticError(
      'The leading eigenvalue is not 1: these are not the boundaries of an encoder.'
    )
  return past.clip(0), future.clip(0)


def _spell(pieces: list[bytes], source: MarkovSource) -> tuple[np.ndarray, np.ndarray]:
  """[d, contexts] the probability that each piece follows each context, and the context after it.

  A piece with a symbol that the source lacks has probability 0.
  """
  chance = np.ones((len(pieces), source.contexts))
  after = np.tile(np.arange(source.contexts), (len(pieces), 1))
  for i, piece in enumerate(pieces):
    for symbol in (source.alphabet.find(byte) for byte in piece):
      chance[i] *= source.kernel[after[i], symbol] if symbol >= 0 else 0
      after[i] = source.next_contexts[after[i], symbol]
  return chance, after


def dictionary_bound(entropy_rate: float, delta: float, size: int) -> float:
  """H / (1-eps), eps = ln(1/delta) / (0.99 ln d): nats per character that some d-token unigram
  reaches.

  Recalled from the main theorem of arXiv 2404.08335, where every transition probability is at
  least delta; check it against the paper before quoting. Infinite where eps >= 1. It is
  vacuous until d is large: at delta = .2 and H = .5004 only d >= 346 brings it below ln 2.
  """
  if size < 2 or not 0 < delta < 1:
    raise InputError(
      f'The bound needs a dictionary of at least 2 tokens and delta in (0, 1); got {size}, {delta}.'
    )
  epsilon = math.log(1 / delta) / (0.99 * math.log(size))
  return entropy_rate / (1 - epsilon) if epsilon < 1 else math.inf


def vacuous(bound: float, unigram: float) -> bool:
  """Whether a bound admits losses that a unigram over characters already has."""
  return bound >= unigram
