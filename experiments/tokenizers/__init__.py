# SPDX-License-Identifier: Apache-2.0
"""Tokenizers side by side: SuperBPE (2503.13423), BoundlessBPE (2504.00178) and their kin."""

from lib import signals

signals.listen_at_start(__name__)
