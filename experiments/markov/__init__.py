# SPDX-License-Identifier: Apache-2.0
"""Toward a Theory of Tokenization in LLMs (Rajaraman, Jiao, Ramchandran; arXiv 2404.08335)."""

from lib import signals

signals.listen_at_start(__name__)
