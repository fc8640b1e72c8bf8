# SPDX-License-Identifier: Apache-2.0
"""Samples text from a trained model and prints it as it is generated.

python -m experiments.tools.sample MODEL --prompt='The ' [--n=4 --max_bytes=400 --temperature=0.8]

Several texts are sampled at once; the first is shown as it is generated, the others after it.
--compare=512 shows no text. It decodes 512 tokens greedily, with the cache and with the whole text
read again for each token, and prints both times. If MODEL is a Hugging Face folder and
`transformers` is installed, it also times `transformers`.

A prompt may end anywhere, also inside a word. --suffix fills the hole between the prompt and this
text, for a model that was trained to do so (table `fim` of `byte_exact`).
"""

import importlib.util
import itertools
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments.tools import command, models
from lib.data import infilling
from lib.decoding import generated_text, sampling
from lib.errors import InputError
from lib.language_model import TrainedModel, huggingface

flags.adopt_module_key_flags(models)
PROMPT = flags.DEFINE_string('prompt', '', 'Beginning of the text.')
SUFFIX = flags.DEFINE_string('suffix', '', 'Text after the hole that is filled.')
N = flags.DEFINE_integer('n', 1, 'Number of texts.', lower_bound=1)
MAX_BYTES = flags.DEFINE_integer('max_bytes', 400, 'Most bytes of each text.', lower_bound=1)
TEMPERATURE = flags.DEFINE_float(
  'temperature', 1.0, 'Sampling temperature; 0: always the most likely token.'
)
TOP_K = flags.DEFINE_integer('top_k', 0, 'Sample from the K most likely tokens; 0: from all.')
TOP_P = flags.DEFINE_float(
  'top_p', 1.0, 'Sample from the fewest tokens with this total probability.'
)
SEED = flags.DEFINE_integer('seed', 0, 'Seed of the samples.', 0, models.LARGEST_SEED)
COMPARE = flags.DEFINE_integer(
  'compare', 0, 'Number of tokens by which decoding is timed.', lower_bound=0
)


def execute(*folders: str) -> None:
  """Samples, or compares."""
  model = models.open_model(*folders)
  if COMPARE.value:
    compare(model, folders[0], COMPARE.value)
    return
  begin = time.perf_counter()
  prompt = PROMPT.value.encode()
  if SUFFIX.value:
    prompt = infilling.prompt(prompt, SUFFIX.value.encode())
  parts = model.generate(
    [prompt] * N.value,
    max_bytes=MAX_BYTES.value,
    seed=SEED.value,
    temperature=TEMPERATURE.value,
    top_k=TOP_K.value,
    top_p=TOP_P.value,
  )
  first, rest = itertools.tee(infilling.middles(parts) if SUFFIX.value else parts)
  sys.stdout.write(PROMPT.value)
  for text in generated_text.as_text(part[0] for part in first):
    sys.stdout.write(text)
    sys.stdout.flush()
  whole = [b''.join(texts) for texts in zip(*rest, strict=True)]
  for number, other in enumerate(whole[1:], 2):
    sys.stdout.write(f'\n--- {number} ---\n{PROMPT.value}{other.decode(errors="replace")}')
  size, seconds = sum(map(len, whole)), time.perf_counter() - begin
  print(f'\n{size:,} bytes, {size / seconds:,.0f} bytes/s, compilation included', file=sys.stderr)


def compare(model: TrainedModel, folder: str, count: int) -> None:
  """Prints tokens/s of `count` greedy tokens after the prompt, in one process, compiled before."""
  start = [] if model.bos is None else [model.bos]
  if model.tokenizer is not None:
    start += model.tokenizer.encode(PROMPT.value.encode()).tolist()
  if not start or len(start) + count > model.context:
    raise InputError(
      f'--compare={count} and a prompt of {len(start)} tokens must fit the context of '
      f'{model.context}, with one token before the first that is sampled.'
    )

  def cached() -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), 1)
    return sampling.sample(
      model.module, model.variables, [start], limit=count, keys=keys, how=sampling.GREEDY
    )[0]

  ways: dict[str, Callable[[], np.ndarray]] = {
    'with the cache': cached,
    'reading all again': lambda: again(model, start, count),
  }
  installed = all(map(importlib.util.find_spec, ('torch', 'transformers')))
  if installed and huggingface.is_folder(pathlib.Path(folder)):
    ways['transformers'] = peer(folder, start, count)
  speeds: dict[str, float] = {}
  for name, run in ways.items():
    run()
    begin = time.perf_counter()
    found = run()
    speeds[name] = len(found) / (time.perf_counter() - begin)
  base = speeds['reading all again']
  for name, speed in speeds.items():
    print(f'{name:20} {speed:10,.1f} tokens/s, {speed / base:6.1f} times reading all again')


def again(model: TrainedModel, start: list[int], count: int) -> np.ndarray:
  """Greedy tokens, for each of which the model reads the whole text; lengths are powers of two."""

  @jax.jit
  def step(variables: Mapping, ids: jax.Array, place: jax.Array) -> jax.Array:
    zeros, positions = jnp.zeros_like(ids), jnp.arange(ids.shape[1])[None]
    batch = {'inputs': ids, 'targets': zeros, 'segments': zeros + 1, 'positions': positions}
    logits = model.module.apply(
      variables, batch, place[None, None], jax.random.key(0), method='logits_at'
    )
    return jnp.argmax(cast(jax.Array, logits)[0, 0])

  ids = list(start)
  for _ in range(count):
    length = min(1 << (len(ids) - 1).bit_length(), model.context)
    row = np.zeros((1, length), np.int32)
    row[0, : len(ids)] = ids
    ids.append(int(step(model.variables, row, np.int32(len(ids) - 1))))
  return np.array(ids[len(start) :])


def peer(folder: str, start: list[int], count: int) -> Callable[[], np.ndarray]:
  """The same by transformers with its cache."""
  import torch
  import transformers

  loaded = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()

  def run() -> np.ndarray:
    with torch.no_grad():
      found = loaded.generate(
        torch.tensor([start]), max_new_tokens=count, min_new_tokens=count, do_sample=False
      )
    return found[0, len(start) :].numpy()

  return run


if __name__ == '__main__':
  command.main('sample', execute, more=True)
