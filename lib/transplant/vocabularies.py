# SPDX-License-Identifier: Apache-2.0
"""Larger and smaller BPE vocabularies: with the tokens of another one, or only those of a text.

BPE applies the first merge that it can, again and again, and undoes none. So every merge that is
applied to a text makes one of its tokens or a part of one, and without all other merges the text is
cut in the same way.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lib.errors import InputError
from lib.tokenizers.base import Dictionary
from lib.tokenizers.bpe import BPE
from lib.tokenizers.foreign import ByteLevel, Foreign, JsonDictionary, Metaspace

MULTIPLE = 64  # of the rows of a smaller table: XLA then multiplies them as those of a larger one


def union(old: Dictionary, new: Dictionary) -> Dictionary:
  """The old tokenizer with the tokens of the new one after its own, and their merges after its own.

  Raises:
    InputError: tokenizers that are not BPE, have different bytes, or write bytes differently.
  """
  if isinstance(old, BPE) and isinstance(new, BPE) and old.encoder == new.encoder == 'merges':
    return _union_of_ours(old, new)
  if isinstance(new, BPE):
    new = ByteLevel(new.to_json().encode())
  rules, more = _rules(old), _rules(new)
  if type(old) is not type(new):
    raise InputError(
      'one of the two tokenizers is byte-level, the other one writes spaces as ▁: their tokens '
      'cannot be joined.'
    )
  vocab, merges = rules['model']['vocab'], _merges(rules)
  names = {token['content'] for token in rules['added_tokens']} | vocab.keys()
  special = {token['content'] for token in more['added_tokens']}
  size = old.vocab_size
  for token in sorted(more['model']['vocab'], key=more['model']['vocab'].get):
    if token not in names and token not in special:
      vocab[token] = size
      size += 1
  known = set(merges)
  rules['model']['merges'] = [
    *merges, *(pair for pair in _merges(more) if pair not in known and _made(pair) in vocab)
  ]  # fmt: skip
  return _written(old, rules)


def _union_of_ours(old: BPE, new: BPE) -> BPE:
  if not set(new.alphabet) <= set(old.alphabet):
    raise InputError('the new tokenizer has bytes that the old one lacks: they cannot be joined.')
  ids = {piece: i for i, piece in enumerate(old.pieces)}
  if len(ids) < old.vocab_size:
    raise InputError('a tokenizer with two tokens of the same bytes cannot be extended.')
  merges = [*map(tuple, old.merges.tolist())]
  known = set(merges)
  for left, right in new.merges.tolist():
    pair = ids[new.pieces[left]], ids[new.pieces[right]]
    ids.setdefault(new.pieces[left] + new.pieces[right], len(ids))
    if pair not in known:
      merges.append(pair)
      known.add(pair)
  return BPE(old.alphabet, merges, rule=old.rule, shared=True)


def trim(
  tokenizer: Dictionary, texts: Sequence[bytes], keep: Collection[int] = ()
) -> tuple[Dictionary, np.ndarray]:
  """The tokenizer with only the tokens that texts use, and their old ids, ascending, int64 [V'].

  Also kept are the tokens that are merged into them, all single bytes, all added tokens, the ids
  `keep`, and then the lowest other ids until the number is a multiple of `MULTIPLE`. The texts
  have the same pieces as before; any other text can still be written. A tokenizer.json that puts
  a space before each text keeps the tokens of the texts with that space and without it.

  Raises:
    InputError: a tokenizer that is not BPE.
  """
  coded = tokenizer.encode_batch(texts)
  if isinstance(tokenizer, Metaspace):
    coded += Foreign(tokenizer.content, '.json').encode_batch(texts)
  used = {int(i) for ids in coded for i in np.unique(ids)} | set(keep)
  used |= {i for i in range(tokenizer.vocab_size) if tokenizer.lengths[i] == 1}
  if isinstance(tokenizer, BPE) and tokenizer.encoder == 'merges':
    own: list[tuple[int, int]] = [(a, b) for a, b in tokenizer.merges.tolist()]
    made = tokenizer.made.tolist()
    kept = _closure(used, _by_result(zip(made, own)), tokenizer)
    place = {old: new for new, old in enumerate(kept)}
    merges = [
      (place[a], place[b])
      for (a, b), i in zip(own, made)
      if a in place and b in place and i in place
    ]
    smaller = BPE(tokenizer.alphabet, merges, rule=tokenizer.rule, shared=tokenizer.shared)
    return smaller, np.array(kept, np.int64)
  rules = _rules(tokenizer)
  vocab: dict[str, int] = rules['model']['vocab']
  used |= {token['id'] for token in rules['added_tokens']}
  used |= {vocab[name] for name in [rules['model'].get('unk_token') or ''] if name in vocab}
  pairs = [pair for pair in _merges(rules) if _made(pair) in vocab]
  as_ids = [(vocab[a], vocab[b]) for a, b in pairs]
  parts = _by_result(zip((vocab[_made(pair)] for pair in pairs), as_ids))
  kept = _closure(used, parts, tokenizer)
  place = {old: new for new, old in enumerate(kept)}
  rules['model']['vocab'] = {name: place[i] for name, i in vocab.items() if i in place}
  rules['model']['merges'] = [
    pair for pair in pairs if all(vocab[name] in place for name in (*pair, _made(pair)))
  ]
  for token in rules['added_tokens']:
    token['id'] = place[token['id']]
  if rules.get('post_processor'):
    rules['post_processor'] = _renumbered(rules['post_processor'], place.__getitem__)
  return _written(tokenizer, rules), np.array(kept, np.int64)


def _by_result(merges: Iterable[tuple[int, tuple[int, int]]]) -> Mapping[int, list[int]]:
  """The ids that are merged into each id."""
  found: dict[int, list[int]] = {}
  for made, pair in merges:
    found.setdefault(made, []).extend(pair)
  return found


def _closure(
  used: Iterable[int], parts: Mapping[int, Iterable[int]], tokenizer: Dictionary
) -> list[int]:
  """The ids used, all that they are merged from, and low ids for a round number, ascending."""
  found: set[int] = set()

  def add(waiting: list[int]) -> None:
    while waiting:
      i = waiting.pop()
      if i not in found:
        found.add(i)
        waiting += parts.get(i, ())

  add([*used])
  for i in np.flatnonzero(tokenizer.lengths).tolist():
    if len(found) % MULTIPLE == 0:
      break
    add([i])
  return sorted(found)


def _rules(tokenizer: Dictionary) -> dict[str, Any]:
  """The content of a tokenizer.json of BPE."""
  content = tokenizer.content if isinstance(tokenizer, JsonDictionary) else b'{}'
  rules = json.loads(content.decode('utf-8-sig'))
  if rules.get('model', {}).get('type') != 'BPE':
    raise InputError(
      f'only the vocabulary of a BPE tokenizer can be changed, in our files or a tokenizer.json; '
      f'got a {tokenizer.family} tokenizer.'
    )
  return rules


def _written(tokenizer: Dictionary, rules: Mapping[str, Any]) -> JsonDictionary:
  """The tokenizer of other rules, which write bytes as `tokenizer` does."""
  kind = Metaspace if isinstance(tokenizer, Metaspace) else ByteLevel
  return kind(json.dumps(rules).encode())


def _merges(rules: Mapping[str, Any]) -> list[tuple[str, str]]:
  """The merges as pairs of tokens; files write them as pairs or as 'left right'."""
  pairs = [m.split(' ') if isinstance(m, str) else m for m in rules['model']['merges']]
  return [(left, right) for left, right in pairs]


def _made(pair: tuple[str, str]) -> str:
  return pair[0] + pair[1]


def _renumbered(rule: Any, place: Callable[[int], int]) -> Any:
  """A post-processor with other ids, which stand in lists `ids` and in pairs [token, id]."""
  if isinstance(rule, dict):
    changed = {key: _renumbered(one, place) for key, one in rule.items()}
    if isinstance(rule.get('ids'), list):
      changed['ids'] = [place(i) for i in rule['ids']]
    return changed
  if isinstance(rule, list):
    if len(rule) == 2 and isinstance(rule[0], str) and type(rule[1]) is int:
      return [rule[0], place(rule[1])]
    return [_renumbered(one, place) for one in rule]
  return rule
