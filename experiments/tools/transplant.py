# SPDX-License-Identifier: Apache-2.0
"""A trained model for another tokenizer, or for fewer tokens of its own.

python -m experiments.tools.transplant --model=FOLDER --tokenizer=FILE --method=focus --out=FOLDER
python -m experiments.tools.transplant --model=FOLDER --trim --text=DIR --out=FOLDER

MODEL is a model folder of this project or a Hugging Face folder; the output has the same format.
Tokens that both tokenizers have keep their rows; special tokens are matched by name. The method
makes the rows of all other tokens (`lib.transplant.methods`). report.json counts the rows by
origin.

--trim keeps the tokens that a text uses, the tokens that they are merged from, all bytes and all
special tokens, and then the lowest other ids until the number of rows is a multiple of 64. The text
is encoded as before, and the logits of kept tokens are the same numbers, bit for bit if the old
table has a multiple of 64 rows too. --trim and --expand take BPE: files of this project, and
tokenizer.json that is byte-level or writes spaces as ▁.
"""

import json
import pathlib
import time

import numpy as np
from absl import flags

from experiments.tools import command
from lib import atomic, language_model
from lib.data import paths
from lib.embeddings.table_pairs import Tables
from lib.errors import InputError
from lib.language_model import TrainedModel, huggingface
from lib.tokenizers import registry
from lib.tokenizers.base import Dictionary, Tokenizer
from lib.transplant import methods, pieces, transplant, vectors, vocabularies
from lib.transplant.distillation import PREFIX, distil

MODEL = flags.DEFINE_string('model', '', 'Model folder.')
TOKENIZER = flags.DEFINE_string('tokenizer', '', 'Tokenizer file of the new tokenizer.')
METHOD = flags.DEFINE_string(
  'method',
  'focus',
  f'One of {", ".join(methods.METHODS)}; a number sets k, as in omp32; '
  f'the prefix {PREFIX} adds Token Distillation.',
)
OUT = flags.DEFINE_string('out', '', 'New folder.')
TEXT = flags.DEFINE_string(
  'text', '', 'Text (file, folder, glob) for vectors of tokens; with --trim, the text to keep.'
)
LIMIT = flags.DEFINE_integer('limit_bytes', 2**22, 'Most bytes of text for vectors.', lower_bound=1)
VECTORS = flags.DEFINE_string(
  'vectors', '', "Instead of --text: word2vec text, or .npz with `old` [V, d] and `new` [V', d]."
)
DONOR = flags.DEFINE_string('donor', '', 'Model folder of a model with the new tokenizer.')
EXPAND = flags.DEFINE_bool('expand', False, 'Keep all old tokens and add the new ones (BPE).')
TRIM = flags.DEFINE_bool('trim', False, 'Keep only the tokens that --text uses (BPE).')
COPY = flags.DEFINE_bool('copy_exact', True, 'Whether shared tokens keep their rows.')
DRY = flags.DEFINE_bool('dry_run', False, 'Print the report and write nothing.')
SEED = flags.DEFINE_integer('seed', 0, 'Seed of random rows.', lower_bound=0, upper_bound=2**32 - 1)


def execute() -> None:
  """Writes the new model, or only prints the report."""
  if not MODEL.value or TRIM.value == bool(TOKENIZER.value):
    raise InputError('give --model=FOLDER, and either --tokenizer=FILE or --trim --text=DIR.')
  if TRIM.value and EXPAND.value:
    raise InputError('--expand needs --tokenizer=FILE; --trim has none.')
  if not DRY.value:
    if not OUT.value:
      raise InputError('give --out=FOLDER, or --dry_run.')
    atomic.check_free(pathlib.Path(OUT.value))
  model = language_model.load(MODEL.value)
  old = pieces.dictionary(model.tokenizer, 'old')
  made, report = trimmed(model, old) if TRIM.value else transplanted(model, old)
  print(json.dumps(report, indent=1))
  if DRY.value:
    return
  if huggingface.is_folder(pathlib.Path(MODEL.value)):
    made.export(OUT.value, huggingface.read_shape(pathlib.Path(MODEL.value)).layout)
  else:
    made.save(OUT.value)
  atomic.write(pathlib.Path(OUT.value) / 'report.json', json.dumps(report, indent=1) + '\n')


def transplanted(model: TrainedModel, old: Dictionary) -> tuple[TrainedModel, dict]:
  """The model for the new tokenizer, and the report."""
  given_tokenizer = registry.load(TOKENIZER.value)
  own = pieces.dictionary(given_tokenizer, 'new')
  new = vocabularies.union(old, own) if EXPAND.value else own
  method = METHOD.value.removeprefix(PREFIX)
  needs, distilled = methods.find(method).needs, method != METHOD.value
  if EXPAND.value and needs == 'donor':
    raise InputError(f'--method={METHOD.value} needs a donor, which has no rows of old tokens.')
  given, texts = None, []
  if needs == 'vectors' and VECTORS.value:
    given = vectors.read(VECTORS.value, old, new)
  elif needs == 'vectors' or distilled:
    texts = read_texts(LIMIT.value)
  donor = language_model.load(DONOR.value) if DONOR.value else None
  if donor and (donor.tokenizer is None or donor.tokenizer.fingerprint != own.fingerprint):
    raise InputError('the donor has another tokenizer than --tokenizer.')
  begin = time.perf_counter()
  made = transplant(
    model.embedding_tables(),
    old,
    new,
    method,
    vectors_of=given,
    donor=donor.embedding_tables() if donor else None,
    texts=texts,
    copy_exact=COPY.value,
    seed=SEED.value,
  )
  kept = pieces.of_model(new) if EXPAND.value else given_tokenizer
  changed = put(model, kept, made.tables, pieces.match(old, new))
  if distilled:
    changed, *_ = distil(model, changed, texts or read_texts(LIMIT.value), seed=SEED.value)
  seconds = time.perf_counter() - begin
  report = {
    'method': METHOD.value, 'old_ids': old.vocab_size, 'ids': new.vocab_size,
    'counts': made.report, 'seconds': round(seconds, 2),
  }  # fmt: skip
  return changed, report


def trimmed(model: TrainedModel, old: Dictionary) -> tuple[TrainedModel, dict]:
  """The model with fewer ids, and the report."""
  keep = [i for i in (model.bos, *model.ends) if i is not None and i < old.vocab_size]
  new, kept = vocabularies.trim(old, read_texts(), keep)
  tables = model.embedding_tables()
  tied = tables.input is tables.output
  first = tables.input[kept]
  cut = Tables(first, first if tied else tables.output[kept])
  if tables.bias is not None:
    cut = cut._replace(bias=tables.bias[kept])
  distinct = [tables.input, *([] if tied else [tables.output])]
  saved = (len(tables.input) - len(kept)) * sum(one.nbytes // len(one) for one in distinct)
  share = 1 - len(kept) / len(tables.input)
  print(
    f'{len(kept):,} of {old.vocab_size:,} ids are kept: the tables take {saved / 2**20:,.1f} MiB '
    f'less, {share:.1%}.'
  )
  report = {'old_ids': old.vocab_size, 'ids': len(kept), 'bytes_saved': saved}
  changed = put(model, pieces.of_model(new), cut, kept)
  return changed, report | {'share_saved': round(share, 4)}


def put(model: TrainedModel, new: Tokenizer, tables: Tables, matched: np.ndarray) -> TrainedModel:
  """The model with these tables; BOS and ends move with the ids `matched` of the old tokenizer.

  A BOS that the new tokenizer lacks becomes the id after its own.
  """
  place = {old: i for i, old in reversed([*enumerate(matched.tolist())]) if old >= 0}
  ends = tuple(place[i] for i in model.ends if i in place)
  bos = None if model.bos is None else place.get(model.bos, -1)
  return model.with_tables(tables, new, bos, ends)


def read_texts(limit: int | None = None) -> list[bytes]:
  """The files of --text, or their first `limit` bytes."""
  if not TEXT.value:
    raise InputError('give text by --text=FILE, FOLDER or GLOB; or vectors by --vectors=FILE.')
  texts: list[bytes] = []
  for path in paths.find_files(TEXT.value):
    if limit is not None and sum(map(len, texts)) >= limit:
      break
    texts.append(pathlib.Path(path).read_bytes()[:limit])
  if not any(texts):
    raise InputError(f'--text={TEXT.value} has only empty files.')
  return texts


if __name__ == '__main__':
  command.main('transplant', execute)
