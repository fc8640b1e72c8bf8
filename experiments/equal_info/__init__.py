# SPDX-License-Identifier: Apache-2.0
"""Training LLMs over Neurally Compressed Text."""
