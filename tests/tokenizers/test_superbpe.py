# SPDX-License-Identifier: Apache-2.0
"""SuperBPE by its laws: it begins as BPE, ends as BPE across words, and keeps its vetoes."""

import numpy as np
import pytest

from lib import tokenizers
from lib.errors import InputError
from lib.tokenizers import pretokenizers
from lib.tokenizers.bpe import train_bpe, train_bpe_unsplit
from lib.tokenizers.superbpe import inherited, train_superbpe
from tests.helpers import byte_models

DOCUMENTS = [byte_models.sources()[i : i + 6000] for i in range(0, 60_000, 6000)]
FREE = {'most_words': 0, 'colon_space': True}


def test_both_ends_are_bpe():
  within = train_bpe(DOCUMENTS, 600)
  assert train_superbpe(DOCUMENTS, 600, 600).fingerprint == within.fingerprint
  across = train_bpe(DOCUMENTS, 600, 'digits_punct')
  assert train_superbpe(DOCUMENTS, 600, 256, **FREE).fingerprint == across.fingerprint


def test_the_first_merges_are_inherited_and_the_rest_cross_words():
  within, both = train_bpe(DOCUMENTS, 600), train_superbpe(DOCUMENTS, 600, 400)
  assert both.merges[:144].tolist() == within.merges[:144].tolist()
  assert both.pieces[:400] == within.pieces[:400]
  assert {bytes([byte]) for byte in range(256)} <= set(both.pieces)
  superwords = [piece for piece in both.pieces[400:] if b' ' in piece.strip()]
  assert superwords
  for piece in both.pieces[400:]:
    assert len(list(filter(None, piece.split(b' ')))) <= 4
    assert b': ' not in piece
    assert pretokenizers.cut(b'x' + piece + b'x', 'digits_punct').size <= 3
  text = byte_models.sources()[60_000:70_000]
  assert both.decode(both.encode(text)) == text
  assert both.rule == 'digits_punct'


def test_every_merge_shortens_the_training_text():
  both = train_superbpe(DOCUMENTS, 420, 380)
  sizes = [
    sum(both.smaller(size).encode(document).size for document in DOCUMENTS)
    for size in range(380, 421, 8)
  ]
  assert np.all(np.diff(sizes) < 0)


def test_a_parent_is_kept_and_training_that_was_stopped_goes_on_as_one_run():
  within, whole = train_bpe(DOCUMENTS, 400), train_superbpe(DOCUMENTS, 700, 400)
  assert train_superbpe(DOCUMENTS, 700, parent=within).fingerprint == whole.fingerprint
  stopped = train_superbpe(DOCUMENTS, 520, parent=within)
  assert train_superbpe(DOCUMENTS, 700, parent=stopped).fingerprint == whole.fingerprint
  assert inherited(whole, within) == len(within.merges) == 144
  other = train_bpe(DOCUMENTS[:2], 400)
  first = next(i for i in range(144) if other.merges[i].tolist() != whole.merges[i].tolist())
  assert inherited(whole, other) == first


def test_runs_that_are_counted_once_are_as_good_as_all():
  assert train_superbpe(DOCUMENTS * 2, 600, min_count=2).fingerprint == (
    train_superbpe(DOCUMENTS, 600, min_count=1).fingerprint
  )


def test_it_is_a_family_and_names_what_it_refuses():
  made = tokenizers.train('superbpe', DOCUMENTS, 500)
  assert made.fingerprint == train_superbpe(DOCUMENTS, 500, 256).fingerprint
  for transition in (255, 501):
    with pytest.raises(InputError, match=f'256 to the 500 tokens .* got {transition}'):
      train_superbpe(DOCUMENTS, 500, transition)
  with pytest.raises(InputError, match='ask for 256 or more'):
    train_superbpe(DOCUMENTS, 200)
  parent = train_bpe(DOCUMENTS, 400)
  with pytest.raises(InputError, match=r'256 to the 300 tokens .* got 400'):
    train_superbpe(DOCUMENTS, 300, parent=parent)
  with pytest.raises(InputError, match=r'the parent has 400 tokens.* got 300'):
    train_superbpe(DOCUMENTS, 500, 300, parent=parent)
  with pytest.raises(InputError, match='a BPE with all bytes'):
    train_superbpe(DOCUMENTS, 500, parent=train_bpe_unsplit([b'abab'], 3, alphabet=None))
  with pytest.raises(InputError, match='is not a pretokenizer: use none'):
    train_superbpe(DOCUMENTS, 500, outer_rule='no such')
