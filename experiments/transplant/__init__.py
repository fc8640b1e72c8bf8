# SPDX-License-Identifier: Apache-2.0
"""New tokenizer, same model."""

from lib import signals

signals.listen_at_start(__name__)
