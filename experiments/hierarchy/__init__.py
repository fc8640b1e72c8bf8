# SPDX-License-Identifier: Apache-2.0
"""Dynamic Chunking for End-to-End Hierarchical Sequence Modeling, and its rivals (2507.07955)."""
