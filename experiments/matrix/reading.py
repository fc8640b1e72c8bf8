# SPDX-License-Identifier: Apache-2.0
"""The text of the grid in the tokens of a tokenizer that its config names."""

from ml_collections import ConfigDict

from experiments import decoders, equal_flops
from experiments.matrix import tokens
from experiments.recipe import Run


class Corpus(equal_flops.Corpus):
  """`equal_flops.Corpus` for a tokenizer by its name."""

  def __init__(self, config: ConfigDict, run: Run, name: str, label: str, options: ConfigDict):
    self.name = name
    tokenizer, m1_flops = tokens.make(config, run, name), tokens.m1_flops(config, run, name)
    decoder = decoders.make(config, options)
    super().__init__(config, run, tokenizer, label, options, m1_flops, decoder)

  @property
  def family(self) -> str:
    """`equal_flops.family`; windows of compressed text have a separate learning rate."""
    return 'windows' if tokens.by_windows(self.name) else super().family
