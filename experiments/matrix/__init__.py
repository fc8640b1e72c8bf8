# SPDX-License-Identifier: Apache-2.0
"""Every tokenizer under every embedding."""
