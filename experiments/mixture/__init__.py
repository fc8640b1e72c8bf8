# SPDX-License-Identifier: Apache-2.0
"""Data Mixture Inference: What do BPE Tokenizers Reveal about their Training Data? (2407.16607)."""

from lib import signals

signals.listen_at_start(__name__)
