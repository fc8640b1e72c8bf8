# SPDX-License-Identifier: Apache-2.0
"""Emergent Semantics Beyond Token Embeddings (arXiv 2507.04886)."""

from lib import signals

signals.listen_at_start(__name__)
