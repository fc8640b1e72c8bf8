# SPDX-License-Identifier: Apache-2.0
"""Tokens by arithmetic coding under a small byte model, as in 'Training LLMs over Neurally
Compressed Text': the coder, equal-info windows, their baselines, and dictionaries that the byte
model chooses.
"""
