# SPDX-License-Identifier: Apache-2.0
"""The one exception for input that a user can mend."""


class InputError(Exception):
  """Bad input: one sentence that says what was wrong and what would be right.

  Not a ValueError, which libraries catch and rewrite.

  Raised for configs, files, streams and token ids. The runner prints the sentence without a
  traceback and exits with code 2; every other exception is a bug and keeps its traceback.
  """
