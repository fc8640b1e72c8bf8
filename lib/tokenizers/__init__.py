# SPDX-License-Identifier: Apache-2.0
"""Tokenizers: bytes to ids and back, one file a family; the registry trains, saves and loads."""

from typing import Any

from lib.tokenizers.base import Tokenizer
from lib.tokenizers.registry import FAMILIES, load, resolve, save, train

__all__ = ['FAMILIES', 'Tokenizer', 'load', 'save', 'train']


def __getattr__(name: str) -> Any:
  # until the recipes use the registry
  places = [place for family in FAMILIES.values() for place in family if place]
  places += ['bpe:train_sequential_bpe', 'unicode:train_unicode']
  for place in places:
    if place.endswith(f':{name}'):
      return resolve(place)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
