# SPDX-License-Identifier: Apache-2.0
"""Toward a Theory of Tokenization in LLMs (Rajaraman, Jiao, Ramchandran; arXiv 2404.08335)."""
