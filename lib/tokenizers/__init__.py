# SPDX-License-Identifier: Apache-2.0
"""Tokenizers: bytes to ids and back, one file a family; the registry trains, saves and loads."""

from lib.tokenizers.base import Tokenizer
from lib.tokenizers.registry import FAMILIES, load, save, train

__all__ = ['FAMILIES', 'Tokenizer', 'load', 'save', 'train']
