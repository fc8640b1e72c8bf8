# SPDX-License-Identifier: Apache-2.0
"""The pictures of the recipe."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from experiments import runner
from experiments.visual_unicode import text
from lib import atomic
from lib.data import glyphs
from lib.report.results import Row
from lib.tokenizers.strings import token_strings


def draw(rows: Sequence[Row], config: ConfigDict, run: runner.Run) -> list[str]:
  """Writes the pictures of the tables that are there, and names them."""
  return [_contact_sheet(config, run)]


def _contact_sheet(config: ConfigDict, run: runner.Run) -> str:
  """Some tokens as the models see them."""
  opened = text.open_text(config)
  tokens = token_strings(opened.tokenizer, config.glyphs.alphabet)
  atomic.write(run.workdir / 'glyphs.png', glyphs.contact_sheet(opened.glyphs, tokens))
  return 'glyphs.png'
