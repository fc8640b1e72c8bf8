# SPDX-License-Identifier: Apache-2.0
"""The recipe of Lexinvariant Language Models, one module a table."""

from lib import signals

signals.listen_at_start(__name__)
