# SPDX-License-Identifier: Apache-2.0
"""A trained model for another tokenizer: new embedding tables, the same decoder.

  made = transplant(model.embedding_tables(), old, new, 'focus', texts=texts)
  model.with_tables(made.tables, new)

Pieces with equal bytes keep their rows; the methods (`lib.transplant.methods`) make all others.
"""

from lib.transplant.apply import Made, transplant

__all__ = ['Made', 'transplant']
