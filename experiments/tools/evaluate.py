# SPDX-License-Identifier: Apache-2.0
"""Bits per byte of a trained model on a text.

python -m experiments.tools.evaluate MODEL --source=book.txt [--csv=scores.csv --view=tokens]
python -m experiments.tools.evaluate MODEL --questions=exam.jsonl

MODEL is a folder that a recipe wrote, or a Hugging Face folder. A document begins with the model's
BOS token, or else its EOS token; a model without both does not score the first token. Documents
longer than the context are read in windows that overlap by half. Each token is scored once, with
probabilities over all ids of the model. Questions are multiple choice, in the layout of MMLU, ARC
or CommonsenseQA (`lib.tasks.questions`). --view=bytes also scores the exact byte-level
probabilities, which sum over all encodings of a text (`lib.decoding.byte_view`). The model also
gives some probability to token sequences that encode no text. --leak=report prints how much;
--leak=renormalise scales the probabilities of each byte to a sum of 1; --leak=beam sums over all
token sequences that spell the text, of which it follows the --beam most likely ones. --view chooses
the lines of the CSV: one for each document, token or byte.
"""

import time
from collections.abc import Sequence

from absl import flags

from experiments.tools import command, models, scores
from experiments.tools.models import LARGEST_SEED
from lib.language_model import TrainedModel, byte_law
from lib.tasks import questions

flags.adopt_module_key_flags(models)
SOURCE = flags.DEFINE_string('source', 'stdlib', 'The text: stdlib, files, a folder or tfds:NAME.')
SPLIT = flags.DEFINE_enum('split', 'test', models.SPLITS, 'Split of the text.')
LIMIT = flags.DEFINE_integer('limit_bytes', 100_000, 'Most bytes of text.', lower_bound=1)
CSV = flags.DEFINE_string('csv', '', 'New file for the scores.')
VIEW = flags.DEFINE_enum(
  'view', 'documents', ('documents', 'tokens', 'bytes'), 'What a line of the CSV is about.'
)
LEAK = flags.DEFINE_enum(
  'leak', 'report', ('report', 'renormalise', 'beam'), 'How lost probability is treated.'
)
BEAM = flags.DEFINE_integer('beam', 16, 'Token sequences that --leak=beam follows.', lower_bound=1)
QUESTIONS = flags.DEFINE_string(
  'questions', '', 'File of multiple-choice questions, instead of a text.'
)
SEED = flags.DEFINE_integer(
  'seed', 0, 'Seed of random rows, if the embedding has them.', 0, LARGEST_SEED
)


def execute(*folders: str) -> None:
  """Scores the text and prints the result."""
  path = models.check_new(CSV.value) if CSV.value else None
  model = models.open_model(*folders)
  if QUESTIONS.value:
    asked = questions.read_questions(QUESTIONS.value, SPLIT.value)
    print('\n'.join(scores.answered(model, asked)))
    return
  texts = models.open_texts(model, SOURCE.value, SPLIT.value, LIMIT.value)
  by_bytes = _of_bytes(model, texts) if VIEW.value == 'bytes' else None
  begin = time.perf_counter()
  losses = model.token_loss(texts, SEED.value)
  seconds = time.perf_counter() - begin
  print('\n'.join(scores.summary(model, texts, losses, seconds)))
  if by_bytes:
    print('\n'.join(scores.of_bytes(texts, losses, by_bytes, LEAK.value)))
    if path:
      scores.write_bytes(path, texts, by_bytes.nats)
  elif path:
    scores.write(path, losses, VIEW.value, model)


def _of_bytes(model: TrainedModel, texts: Sequence[bytes]) -> byte_law.ByteLoss:
  """The texts by their bytes, scored before anything is printed, since a tokenizer may refuse."""
  found = byte_law.byte_loss(model, texts, renormalise=LEAK.value == 'renormalise')
  if LEAK.value == 'beam':
    found = found._replace(nats=byte_law.beam_loss(model, texts, BEAM.value))
  return found


if __name__ == '__main__':
  command.main('evaluate', execute, more=True)
