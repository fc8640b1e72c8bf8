# SPDX-License-Identifier: Apache-2.0
"""Bits per byte of a trained model on a text.

python -m experiments.tools.evaluate MODEL --source=book.txt [--csv=scores.csv --view=tokens]
python -m experiments.tools.evaluate MODEL --questions=exam.jsonl

MODEL is a folder that a recipe wrote or a Hugging Face folder. A document begins with the model's
BOS (else its EOS; else its first token is not scored). Documents longer than the context are read
in windows that overlap by half, and each token is scored once, by the probability among all of the
model's ids. Questions are multiple choice, in the layout of MMLU, ARC or CommonsenseQA
(`lib.tasks.questions`). With --view=bytes the exact law of bytes is scored too, which sums over all
covers of a text (`lib.decoding.byte_view`). The CSV has a line for each document, or for each token
or byte, as --view says.
"""

import time

from absl import flags

from experiments.tools import command, models, scores
from experiments.tools.models import LARGEST_SEED
from lib.language_model import byte_law
from lib.tasks import questions

SOURCE = flags.DEFINE_string('source', 'stdlib', 'The text: stdlib, files, a folder or tfds:NAME.')
SPLIT = flags.DEFINE_enum('split', 'test', models.SPLITS, 'Which part of it.')
LIMIT = flags.DEFINE_integer('limit_bytes', 100_000, 'Bytes of it at most.', lower_bound=1)
CSV = flags.DEFINE_string('csv', '', 'A new file for the scores.')
VIEW = flags.DEFINE_enum('view', 'documents', ('documents', 'tokens', 'bytes'), 'Lines of the CSV.')
QUESTIONS = flags.DEFINE_string('questions', '', 'Multiple choice in place of a text.')
SEED = flags.DEFINE_integer(
  'seed', 0, 'Of random rows, if the embedding draws them.', 0, LARGEST_SEED
)


def execute(*folders: str) -> None:
  """Scores the text and prints what came of it."""
  path = models.check_new(CSV.value) if CSV.value else None
  model = models.open_model(*folders)
  if QUESTIONS.value:
    asked = questions.read_questions(QUESTIONS.value, SPLIT.value)
    print('\n'.join(scores.answered(model, asked)))
    return
  texts = models.open_texts(model, SOURCE.value, SPLIT.value, LIMIT.value)
  begin = time.perf_counter()
  losses = model.token_loss(texts, SEED.value)
  seconds = time.perf_counter() - begin
  print('\n'.join(scores.summary(model, texts, losses, seconds)))
  if VIEW.value == 'bytes':
    found = byte_law.byte_loss(model, texts)
    print('\n'.join(scores.of_bytes(texts, losses, found)))
    if path:
      scores.write_bytes(path, texts, found.nats)
  elif path:
    scores.write(path, losses, VIEW.value, model)


if __name__ == '__main__':
  command.main('evaluate', execute, more=True)
