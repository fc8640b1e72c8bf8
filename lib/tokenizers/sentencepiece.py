# SPDX-License-Identifier: Apache-2.0
"""SentencePiece (BPE and unigram LM) with byte fallback: lossless (arXiv 1808.06226).

A model that normalises text, adds or drops spaces, or lacks byte tokens is refused. Its own options
show what it does; no text is tried.
"""

import functools
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lib.errors import InputError
from lib.tokenizers import base, utf8

LEAST = 258  # ids: the bytes, <unk> and the character for a space
SPACE = '\u2581'  # how SentencePiece writes a space, so the two look alike to it
SKIPPED = SPACE + '\u2585\0'  # its trainer skips sentences with the last two
SENTENCE = 4096  # bytes of the longest sentence to train on


class SentencePiece(utf8.TextDictionary):
  """A trained model. Ids are SentencePiece's own; those of unknown and control tokens are unused.

  Args:
    model_proto: the serialised model, with byte fallback and without normalisation.

  Raises:
    InputError: not a serialised model, or a model that changes text.
  """

  family = 'sentencepiece'
  refused = SPACE

  def __init__(self, model_proto: bytes):
    self.model_proto = model_proto
    self._processor = processor(model_proto)
    try:
      pieces = [self._piece(i) for i in range(self._processor.vocab_size())]
    except ValueError as error:  # no text, or no number of a byte
      raise InputError(f'a piece of this SentencePiece model is damaged: {error}') from error
    super().__init__(pieces)
    if np.any(self.byte_ids < 0) or changes_text(model_proto):
      raise InputError(
        'this SentencePiece model changes text: train it with byte_fallback, identity '
        'normalisation, no dummy prefix and all whitespace kept'
      )

  def _piece(self, i: int) -> bytes:
    """The bytes of an id of the model."""
    if self._processor.is_unknown(i) or self._processor.is_control(i):
      return b''
    piece = self._processor.id_to_piece(i)
    if self._processor.is_byte(i):
      return bytes([int(piece[1:-1], 16)])  # '<0x41>'
    return piece.replace(SPACE, ' ').encode()

  @functools.cached_property
  def special_tokens(self) -> Mapping[int, str]:
    """Unknown and control tokens by id."""
    ids = range(self.vocab_size)
    no_text = lambda i: self._processor.is_unknown(i) or self._processor.is_control(i)
    return {i: self._processor.id_to_piece(i) for i in ids if no_text(i)}

  @functools.cached_property
  def byte_ids(self) -> np.ndarray:
    """The id of each single byte, int32 [256]; -1 where the model has none."""
    # The id of an unknown piece is that of <unk>, which is no byte.
    ids = [self._processor.piece_to_id(f'<0x{byte:02X}>') for byte in range(256)]
    return np.array([i if self._processor.is_byte(i) else -1 for i in ids], np.int32)

  @functools.cached_property
  def unigram_scores(self) -> np.ndarray | None:
    """Log-probabilities of the pieces of a unigram model, float32 [V], and −inf for other ids.

    None for a model of BPE, and for one with pieces that are always or never taken.
    """
    model = parsed(self.model_proto)
    kinds = {piece.type for piece in model.pieces}
    normal, unknown, control, byte = 1, 2, 3, 6  # in sentencepiece_model.proto
    if model.trainer_spec.model_type != 1 or not kinds <= {normal, unknown, control, byte}:
      return None
    scores = [piece.score if piece.type == normal else -np.inf for piece in model.pieces]
    return np.array(scores, np.float32)

  def encode_text(self, text: str) -> list[int]:
    """Returns the model's ids."""
    return self._processor.encode(text)

  def encode_places(self, text: str) -> tuple[list[int], list[int]]:
    """The same ids, and the character after the last of each."""
    return places(self._processor, text)

  def state(self) -> base.State:
    """The serialised model."""
    return {'model_proto': base.byte_array(self.model_proto)}

  @classmethod
  def from_state(cls, state: base.State) -> 'SentencePiece':
    """Rebuilds from `state()`."""
    return cls(state['model_proto'].tobytes())


def processor(model_proto: bytes):
  """The library's object for a model; raises InputError for bytes that are no model."""
  import sentencepiece

  try:
    return sentencepiece.SentencePieceProcessor(model_proto=model_proto)
  except (RuntimeError, ValueError) as error:
    raise InputError(f'these {len(model_proto)} bytes are no SentencePiece model') from error


def places(model, text: str) -> tuple[list[int], list[int]]:
  """The ids of a text, and the character after the last of each."""
  pieces = model.encode(text, return_type='proto').pieces
  ends = utf8.character_ends(text)[1:]  # the library's places are of UTF-8
  stops = np.searchsorted(ends, [piece.end for piece in pieces], side='right')
  return [piece.id for piece in pieces], stops.tolist()


def parsed(model_proto: bytes) -> Any:
  """The fields of a serialised model."""
  from sentencepiece import sentencepiece_model_pb2

  # The module makes its classes when it is imported.
  return sentencepiece_model_pb2.ModelProto.FromString(model_proto)  # type: ignore[attr-defined]


def changes_text(model_proto: bytes) -> bool:
  """Whether a model has rules for characters, or adds or drops spaces."""
  model = parsed(model_proto)
  rules = model.normalizer_spec
  return bool(
    rules.precompiled_charsmap
    or rules.add_dummy_prefix
    or rules.remove_extra_whitespaces
    or model.denormalizer_spec.precompiled_charsmap
  )


def train_sentencepiece(
  documents: Sequence[bytes], vocab_size: int, kind: str = 'unigram'
) -> SentencePiece:
  """Trains a model of exactly `vocab_size` ids; it depends on the documents alone.

  Args:
    documents: any bytes; invalid UTF-8 is skipped.
    vocab_size: including 256 byte tokens and one unused id, <unk>.
    kind: 'unigram' or 'bpe'.

  Raises:
    InputError: an unknown kind, no text, or more ids than the documents yield.
  """
  import sentencepiece

  if kind not in ('bpe', 'unigram'):
    raise InputError(f'SentencePiece kind {kind!r} is unknown: use bpe or unigram')
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=_sentences(documents),
      model_writer=model,
      model_type=kind,
      vocab_size=vocab_size,
      byte_fallback=True,
      required_chars=SPACE,  # else text with no space, or few, gives a model that changes spaces
      normalization_rule_name='identity',
      add_dummy_prefix=False,
      remove_extra_whitespaces=False,
      allow_whitespace_only_pieces=True,
      bos_id=-1,
      eos_id=-1,
      max_sentence_length=2**30,
      num_threads=1,  # sums of floats depend on the number of threads
      minloglevel=2,
    )
  except RuntimeError as error:
    raise InputError(_refusal(str(error), vocab_size, kind)) from error
  return SentencePiece(model.getvalue())


def _sentences(documents: Sequence[bytes]) -> Iterator[str]:
  """Lines, each with the newline before it: the trainer strips newlines at the end of a sentence.

  Longer lines are cut, since the time of unigram training grows with the square of a sentence.
  """
  for document in documents:
    for part in utf8.cut(document, SKIPPED):
      if isinstance(part, str):
        for line in filter(None, re.split('(?=\n)', part)):
          yield from utf8.pieces(line, SENTENCE)


def _refusal(message: str, vocab_size: int, kind: str) -> str:
  what = f'a SentencePiece {kind} vocabulary of {vocab_size}'
  if found := re.search(r'\d+ vs (\d+)', message):
    return f'{what} is too small for these documents: ask for {found[1]} or more'
  if found := re.search(r'a value <= (\d+)', message):
    return f'{what} is too large for these documents: ask for {found[1]} or less'
  if 'sentences_.empty()' in message:
    return f'there is no text to train {what} on'
  return f'{what} cannot be trained on these documents: {message}'
