# SPDX-License-Identifier: Apache-2.0
"""A trained model's law of bytes: the same with a cache as by reading each node's tokens again."""

import dataclasses

import numpy as np
import pytest

from lib.decoding.byte_view import ByteTexts, OfIds
from lib.embeddings.learned import Learned
from lib.embeddings.lexinvariant import Lexinvariant
from lib.errors import InputError
from lib.language_model import TrainedModel, byte_law, cached_law
from lib.models.decoder import Decoder, LanguageModel
from lib.models.recurrence import RecurrentDecoder
from lib.tokenizers import covers
from lib.tokenizers.bpe import train_bpe
from tests.helpers import hostile
from tests.language_model.test_language_model import filled

CONTEXT = 8
BPE = train_bpe([hostile.TEXT], 280)
WORD_PIECES = hostile.family('wordpiece')
TEXTS = [hostile.TEXT[:70], b'', b'the words  \n \xc3', hostile.TEXT[7:40]]


def model_of(position='rotary', tokenizer=BPE, embedding=Learned):
  decoder = Decoder(layers=1, dim=16, heads=2, mlp_dim=16, position=position, max_length=CONTEXT)
  module = LanguageModel(embedding(tokenizer.vocab_size, 16), decoder)
  return TrainedModel(module, filled(module), tokenizer, CONTEXT)


def probabilities(model, ids):
  """P(token | ids) as `TrainedModel.token_loss` reads long texts."""
  start = 0
  while len(ids) - start >= CONTEXT:
    start += CONTEXT // 2
  seen = [model.bos, *ids][start:]
  logits = model.logits(np.pad(seen, (0, CONTEXT - len(seen))))[len(seen) - 1].astype(float)
  exps = np.exp(logits - logits.max())
  return exps / exps.sum()


@pytest.mark.parametrize(
  ('position', 'tokenizer', 'nodes'), [('rotary', BPE, 1.05), ('learned', WORD_PIECES, 1.5)]
)
def test_bytes_with_a_cache_as_without(position, tokenizer, nodes):
  model = model_of(position, tokenizer)
  found = byte_law.byte_loss(model, TEXTS)
  again = ByteTexts(byte_law.vocabulary(model), OfIds(lambda ids: probabilities(model, ids)), 1)
  tokens = model.token_loss(TEXTS)
  online = ByteTexts(byte_law.vocabulary(model), cached_law.CachedLaw(model, 4), 4)
  online.begin(range(4))
  for one, other in zip(online.nats(TEXTS), found.nats, strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
  for text, nats, loss in zip(TEXTS, found.nats, tokens, strict=True):
    again.begin([0])
    again.nats([text])
    assert nats.sum() == pytest.approx(-again.log_probability[0], abs=2e-4)
    assert nats.sum() <= loss.nats.sum() + 1e-4
  assert 0 < found.leak_per_token().value < 1
  follow, leak, ids = covers.follow(tokenizer), [], tokenizer.encode(TEXTS[2]).tolist()
  state = follow.start
  for count, token in enumerate(ids):
    row = probabilities(model, ids[:count])
    leak.append(
      -np.log(row[: tokenizer.vocab_size][follow.allowed(state)].sum() + row[[*model.ends]].sum())
    )
    state = follow.after(state, token)
  np.testing.assert_allclose(found.leak[2], leak, rtol=0, atol=1e-5)
  assert found.evaluations <= nodes * sum(len(text) + 1 for text in TEXTS)


def test_a_decoder_without_a_tree_reads_the_paths_of_it():
  module = LanguageModel(Learned(BPE.vocab_size, 16), RecurrentDecoder(layers=1, dim=16))
  model = TrainedModel(module, filled(module), BPE, CONTEXT)
  text = hostile.TEXT[:24]
  again = ByteTexts(byte_law.vocabulary(model), OfIds(lambda ids: probabilities(model, ids)), 1)
  again.begin([0])
  [expected] = again.nats([text])
  np.testing.assert_allclose(byte_law.byte_loss(model, [text]).nats[0], expected, atol=1e-4)
  with pytest.raises(InputError, match='cannot read a tree'):
    cached_law.CachedLaw(model, 1)


def test_all_ways_to_write_a_text_are_likelier():
  model = model_of()
  exact = byte_law.byte_loss(model, TEXTS[2:])
  every = byte_law.beam_loss(model, TEXTS[2:], 16)
  for one, other in zip(exact.nats, every, strict=True):
    assert other.sum() < one.sum()
  law = OfIds(lambda ids: probabilities(model, ids))
  again = ByteTexts(byte_law.vocabulary(model, every=True), law, 1, beam=16)
  again.begin([0])
  [expected] = again.nats(TEXTS[2:3])
  np.testing.assert_allclose(every[0], expected, rtol=0, atol=1e-4)


def test_models_without_a_law_of_bytes():
  model = model_of()
  for other, message in (
    (dataclasses.replace(model, bos=None), 'no BOS token'),
    (dataclasses.replace(model, tokenizer=None), 'no tokenizer'),
    (model_of(embedding=Lexinvariant), 'draws its rows'),
  ):
    with pytest.raises(InputError, match=message):
      byte_law.byte_loss(other, TEXTS)
