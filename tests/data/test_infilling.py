# SPDX-License-Identifier: Apache-2.0
"""Texts with holes: what is left out comes last, and the rest is all there."""

from lib.data import infilling
from lib.data.infilling import END, PREFIX, SUFFIX


def test_a_text_with_a_hole_is_its_document_in_another_order():
  documents = [bytes(range(32, 120)), b'ab', b'']
  texts = infilling.WithHoles(documents, 40, copies=20)
  assert len(texts) == 60
  holes = set()
  for i, text in enumerate(map(texts.__getitem__, range(60))):
    assert text[:1] == SUFFIX
    assert text[-1:] == END
    suffix, rest = text[1:-1].split(PREFIX)
    whole = rest + suffix
    assert whole in documents[i // 20]
    assert len(whole) == min(40, len(documents[i // 20]))
    holes.add((len(suffix), len(rest)))
    assert text == texts[i]  # the same each time
    assert any(text == infilling.prompt(rest[:n], suffix) + rest[n:] + END for n in range(41))
  assert len(holes) > 10


def test_a_middle_stops_at_its_end():
  parts = [[b'ab', b'x' + END + b'y'], [b'c', b'z'], [b'd' + END, b''], [b'e', b'']]
  assert list(infilling.middles(parts)) == [[b'ab', b'x'], [b'c', b''], [b'd', b'']]
