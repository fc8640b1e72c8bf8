# SPDX-License-Identifier: Apache-2.0
"""The older name of `lib.tokenizers.registry.load` and `save`."""

from lib.tokenizers.registry import load, save  # until the recipes use the registry

__all__ = ['load', 'save']
