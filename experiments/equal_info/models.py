# SPDX-License-Identifier: Apache-2.0
"""The models that read tokens: M2 and those that decompress."""

from ml_collections import ConfigDict

from experiments import fit
from lib.embeddings.learned import Learned
from lib.models.decoder import LanguageModel


def make_model(config: ConfigDict, options: ConfigDict, vocab_size: int) -> LanguageModel:
  """The decoder of a section over `vocab_size` rows."""
  rows = Learned(
    vocab_size,
    options.dim,
    tied=False,
    init_std=1.0,
    readout_scale=options.dim**-0.5,
    z_loss=options.z_loss,
    dtype=fit.dtype(config),
  )
  return LanguageModel(rows, fit.make_decoder(options, fit.dtype(config), options.length))
