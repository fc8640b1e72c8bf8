# SPDX-License-Identifier: Apache-2.0
"""My tokenizer: python docs/examples/my_tokenizer.py tokenizer.json book.txt"""

import sys

from lib import tokenizers
from lib.data import sources
from lib.tokenizers import documents

tokenizer = tokenizers.load(sys.argv[1])  # tokenizer.json, tekken.json, .model, or ours
text = sources.sample(sources.open_source(sys.argv[2], 'test'), 1_000_000)

tokens = sum(coded.ids.size for coded in tokenizer.cover_batch(text))
print(f'{tokenizer.vocab_size:,} ids, {sum(map(len, text)) / tokens:.2f} bytes per token')
back = documents.restored(tokenizer, text)
print(
  f'lossless: {tokenizer.lossless}; restored: {back.share_bytes:.1%} of the bytes, '
  f'{back.share_documents:.1%} of the documents; unknown: {back.share_unknown:.1%}'
)
