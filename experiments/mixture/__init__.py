# SPDX-License-Identifier: Apache-2.0
"""Data Mixture Inference: What do BPE Tokenizers Reveal about their Training Data? (2407.16607)."""
