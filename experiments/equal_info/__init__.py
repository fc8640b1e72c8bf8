# SPDX-License-Identifier: Apache-2.0
"""Training LLMs over Neurally Compressed Text."""

from lib import signals

signals.listen_at_start(__name__)
