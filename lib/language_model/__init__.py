# SPDX-License-Identifier: Apache-2.0
"""A trained language model as one object, in memory and in a folder.

It does not depend on the recipe that trained it: the folder contains the module's classes and
fields, the weights, the tokenizer and the provenance (`lib.language_model.folder`).

  model = language_model.load('runs/equal_info/models/m2')
  model.bits_per_byte(texts)
  model.with_tables(tables, tokenizer).save('runs/transplanted')
"""

from lib.embeddings.table_pairs import Tables
from lib.language_model.folder import load
from lib.language_model.modules import register
from lib.language_model.trained_model import Provenance, TokenLoss, TrainedModel

__all__ = ['Provenance', 'Tables', 'TokenLoss', 'TrainedModel', 'load', 'register']
