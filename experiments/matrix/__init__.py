# SPDX-License-Identifier: Apache-2.0
"""Every tokenizer under every embedding."""

from lib import signals

signals.listen_at_start(__name__)
