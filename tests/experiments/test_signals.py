# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and Ctrl-C end a command within seconds, in whatever it is at."""

import random
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.recipes import ROOT, command

WITHIN = 5  # seconds
BEGIN = """
from lib import signals
signals.listen('name')
print('ready', flush=True)
"""
WORK = {
  'asleep': 'import time; time.sleep(600)',
  'in a lock': 'import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()',
  'in finalizers': """
class Loud:
  def __del__(self):  # an exception here is lost
    sum(range(3_000_000))
while True: Loud()
""",
  'training SentencePiece': """
import io, random, sentencepiece
words = [''.join(random.choices('abcdefghijklmnopqrstuvwxyz', k=7)) for _ in range(300_000)]
texts = (' '.join(words[i:i + 400]) for i in range(0, len(words), 400))
sentencepiece.SentencePieceTrainer.train(sentence_iterator=texts, model_writer=io.BytesIO(),
                                         vocab_size=8000, max_sentence_length=10**6)
""",
}


def stopped(arguments, number, wait):
  """Exit code, what was said, and the seconds that a process took to end after a signal."""
  process = subprocess.Popen(
    arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  wait(process)
  begin = time.monotonic()
  process.send_signal(number)
  _, said = process.communicate(timeout=120)
  return process.returncode, said, time.monotonic() - begin


@pytest.mark.parametrize('work', WORK)
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_any_work_with_one_sentence(work, number):
  def wait(process):
    process.stdout.readline()
    time.sleep(random.uniform(0.1, 1))

  code, said, seconds = stopped([sys.executable, '-c', BEGIN + WORK[work]], number, wait)
  name = {signal.SIGTERM: 'SIGTERM', signal.SIGINT: 'Ctrl-C'}[number]
  assert code == 128 + number
  last = said.splitlines()[-1]  # SentencePiece says much
  assert last == f'name: stopped by {name}; the same command resumes from the last save.'
  assert 'Traceback' not in said
  assert seconds < WITHIN


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_compilation(number):
  work = """
import jax, jax.numpy as jnp
jax.config.update('jax_enable_compilation_cache', False)
def chain(x):
  for i in range(2000):  # minutes to compile, a second to trace
    x = jnp.sin(x) @ x + i
  return x
lowered = jax.jit(chain).lower(jax.ShapeDtypeStruct((32, 32), 'float32'))
print('compiling', flush=True)
lowered.compile()
print('compiled', flush=True)
"""

  def wait(process):
    assert [process.stdout.readline() for _ in range(2)] == ['ready\n', 'compiling\n']
    time.sleep(random.uniform(0.1, 1))

  code, said, seconds = stopped([sys.executable, '-c', BEGIN + work], number, wait)
  assert code == 128 + number
  assert said.splitlines()[-1].startswith('name: stopped by')
  assert seconds < WITHIN


def test_a_recipe_is_stopped_while_it_imports(tmp_path):
  def wait(process):
    del process
    time.sleep(random.uniform(0.5, 1.5))

  code, said, seconds = stopped(command('markov', tmp_path / 'w'), signal.SIGINT, wait)
  assert code == 130
  assert said == 'markov: stopped by Ctrl-C; the same command resumes from the last save.\n'
  assert seconds < WITHIN
  assert not (tmp_path / 'w').exists()


def test_the_second_signal_ends_the_process_at_once():
  work = """
import signal, time
said = lambda number, frame: print('first', flush=True)
with signals.finishing():
  signal.signal(signal.SIGTERM, said)
  print('finishing', flush=True)
  while True: time.sleep(0.1)
"""

  def wait(process):
    process.stdout.readline()
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == 'first\n'

  code, said, seconds = stopped([sys.executable, '-c', BEGIN + work], signal.SIGINT, wait)
  assert (code, 'stopped by Ctrl-C' in said) == (130, True)
  assert seconds < WITHIN
