# SPDX-License-Identifier: Apache-2.0
"""Exact byte-level probabilities of token models (2410.09303, 2506.14123, 2412.03719)."""

from lib import signals

signals.listen_at_start(__name__)
