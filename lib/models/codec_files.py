# SPDX-License-Identifier: Apache-2.0
"""Any tokenizer from one file; one that steps M1 has its M1 in the file."""

import os

from lib.errors import InputError
from lib.models.byte_model import ByteModel
from lib.models.byte_stepper import ByteStepper
from lib.tokenizers import files, foreign
from lib.tokenizers import load as load_plain
from lib.tokenizers import save as save_plain
from lib.tokenizers.base import State, Tokenizer
from lib.tokenizers.coding.stepping import Stepped
from lib.tokenizers.coding.streams import SteppedAC
from lib.tokenizers.coding.window_streams import SteppedEqualInfo

STEPPED: dict[str, type[Stepped]] = {codec.family: codec for codec in (SteppedAC, SteppedEqualInfo)}
M1 = 'm1/'  # before the names of its arrays


def save(tokenizer: Tokenizer, path: str | os.PathLike) -> None:
  """Writes a tokenizer to one file with a checksum, whole or not at all.

  Raises:
    InputError: it is of no family that can be saved, or steps an M1 that is no `ByteModel`.
  """
  if not isinstance(tokenizer, Stepped):
    save_plain(tokenizer, path)
    return
  stepper = tokenizer.stepper
  if STEPPED.get(tokenizer.family) is not type(tokenizer) or not isinstance(stepper, ByteStepper):
    raise InputError(
      f'a {type(tokenizer).__name__} cannot be saved with an M1 that is a {type(stepper).__name__}'
    )
  model = {M1 + name: array for name, array in stepper.model.state().items()}
  files.write(path, tokenizer.family, tokenizer.state() | model)


def load(path: str | os.PathLike) -> Tokenizer:
  """Reads what `save` here wrote, or what `lib.tokenizers.load` reads, with its errors."""
  if foreign.recognised(path):
    return load_plain(path)
  family, state = files.read(path)
  if family not in STEPPED:
    return load_plain(path)
  with files.rebuilding(path, f'{family} tokenizer'):
    model = ByteModel.from_state({
      name.removeprefix(M1): array for name, array in state.items() if name.startswith(M1)
    })  # fmt: skip
    return _rebuilt(family, state, model)


def _rebuilt(family: str, state: State, model: ByteModel) -> Stepped:
  if state['model'].tobytes().decode() != model.fingerprint:
    raise InputError(f'the M1 in this {family} file is not the one that its codec names')
  stepper, token_bits = ByteStepper(model), int(state['token_bits'])
  if family == SteppedAC.family:
    return SteppedAC(stepper, model.fingerprint, token_bits)
  bits, reset = state['window'].tolist()
  mode = state['mode'].tobytes().decode()
  return SteppedEqualInfo(stepper, model.fingerprint, bits, mode, token_bits, reset)
