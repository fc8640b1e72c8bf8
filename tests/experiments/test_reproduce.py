# SPDX-License-Identifier: Apache-2.0
"""The report over all recipes: runs, what is gathered, the page."""

import ast
import dataclasses
import importlib
import pathlib
import re
import shlex
import signal
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image

from configs import markov
from experiments import changes, documents, minutes, reproduce, runner
from lib import provenance
from lib.errors import InputError
from lib.report import claims, published, results, sections
from lib.report.results import Row, coordinates
from lib.stats import Estimate
from tests.helpers import browser


def estimated(table, row, column, value, sem):
  """A row with an error over 20 texts."""
  return Row.of(table, coordinates(row), column, Estimate(value, sem, '20', 'texts', 19.0))


ROWS = [
  estimated('ngram', 'k=1,m=0', 'nats_per_char', 0.6932, 1e-4),
  Row('ngram', {'k': 1, 'm': 0}, 'closed_form_nats_per_char', 0.693147, note='a < b & "c"'),
  estimated('bound', 'p=0.8,d=1024', 'lzw_nats_per_char', 0.5337, 0.001),
  Row('bound', {'p': '0.8', 'd': 1024}, 'bound_nats_per_char', 0.5),
  *(Row(table, {'k': 1}, 'y', 1.0) for table in reproduce.MINUTES['markov']),
]


def leave_run(folder, scale='smoke', rows=ROWS, **changes):
  """A finished run of markov with these rows, and a picture wider than a phone."""
  folder.mkdir(parents=True, exist_ok=True)
  config = markov.get_config(scale)
  config.update_from_flattened_dict(changes)
  facts = {'p': 0.8, 'q': 0.8, 'kind': 'switching'}
  results.write_results(
    folder / 'results.json', published.attach(rows, 'markov', facts), experiment='markov',
    config=runner.plain(config), overrides={}, devices=['cpu:cpu'], seconds={'ngram': 60.0},
    pictures={'wide.png': 'Nothing & more.'},
  )  # fmt: skip
  Image.new('RGB', (1500, 40), 'navy').save(folder / 'wide.png')
  return folder


@pytest.fixture
def report(tmp_path):
  """The report of a run, and its section."""
  folder = leave_run(tmp_path / 'markov')
  reproduce.report({folder: ''}, tmp_path)
  return tmp_path, reproduce.read(folder)


def test_a_gathered_run_is_judged(report):
  folder, section = report
  verdicts = {one.claim.claim: one.verdict for one in section.judged}
  [ngram] = [verdict for claim, verdict in verdicts.items() if 'stuck at ln 2' in claim]
  [bound] = [verdict for claim, verdict in verdicts.items() if 'LZW dictionary of d' in claim]
  assert (ngram, bound) == ('agrees with the theorem', 'does not hold here')
  text = (folder / 'report.md').read_text()
  assert '**Over an LZW dictionary' in text
  # 0.0337 ± 2.093 × 0.001: Student's t with 19 degrees of freedom
  assert re.search(
    r'\| no +\| p=0.8, d=1024 +\| 0.5337 ± 0.0010 +\| 20 +\| 0.5000 +'
    r'\| \+0.0337 \[\+0.0316, \+0.0358\] +\| < 0.0001 +\|', text
  )  # fmt: skip
  assert '<summary>Not run here: 9 claims</summary>' in text
  assert 'Not run: `transformer / ' in text
  assert 'Of 11 claims, 1 agrees with the theorem, 1 does not hold' in text
  assert '![Nothing & more.](markov/wide.png)' in text
  assert re.search(r'\| bound +\| texts +\| 20 +\| 19 +\|', text)


def test_the_report_opens_with_a_finding_of_each_run_and_orders_claims_by_verdict(report):
  folder, section = report
  text = (folder / 'report.md').read_text()
  assert text.index('*agrees with the theorem:* A model of fewer') < text.index(reproduce.NEXT[0])
  assert text.index(reproduce.NEXT[0]) < text.index('## Toward a Theory')
  order = [one.verdict for one in section.claims]
  assert order == sorted(order, key=[*claims.Verdict].index)


def test_a_terminal_shows_verdicts_without_claims_that_were_not_run(report, capsys):
  _, section = report
  lines = sections.terminal(section).splitlines()
  assert max(map(len, lines)) <= 80
  assert lines[0].startswith('* AGREES WITH THE THEOREM: A model of fewer characters')
  assert 'NOT RUN HERE' not in ' '.join(lines)
  assert ' '.join(lines).endswith('were not run.')


class Tags(HTMLParser):
  """Checks that tags close in order, and keeps what the page refers to."""

  def __init__(self):
    super().__init__()
    self.open, self.found = [], []

  def handle_starttag(self, tag, attrs):
    self.found += [value for key, value in attrs if key in ('src', 'href')]
    if tag not in ('meta', 'img', 'wbr'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_the_page_is_one_file(report):
  folder, _ = report
  parser = Tags()
  parser.feed((folder / 'report.html').read_text())
  assert not parser.open
  assert len(parser.found) == 2  # a link to the run, and its picture
  assert all(one.startswith(('#', 'data:image/png;base64,')) for one in parser.found)


needs_a_browser = pytest.mark.skipif(
  not browser.CHROMIUM,
  reason='no Chromium here (Debian: apt-get install --no-install-recommends chromium)',
)


@needs_a_browser
@pytest.mark.parametrize('width', [390, 1280])
def test_the_page_fits_a_phone_and_a_screen(report, width):
  folder, _ = report
  found, console = browser.look(folder / 'report.html', folder, width)
  assert found['needed'] <= found['width'] <= width
  assert found['fetched'] == []
  assert found['unseen'] == 0
  assert console == ''


@needs_a_browser
def test_folded_parts_are_printed_on_paper(report):
  folder, _ = report
  text = (folder / 'report.html').read_text()
  without = folder / 'without.html'
  without.write_text(re.sub('<details>.*?</details>', '', text, flags=re.DOTALL))
  assert browser.printed(folder / 'report.html', folder) > browser.printed(without, folder) > 0


def test_changed_fields_are_reported_and_then_only_theory_is_reproduced(tmp_path):
  falls = [
    ('bpe,d=512', 'byte_unigram'),
    *((f'bpe,d={2**i}', 'smaller') for i in range(10, 16)),
    *((f'{tokenizer},d=16384', 'byte_bigram') for tokenizer in ('bpe', 'unigram', 'wordpiece')),
  ]
  rows = ROWS + [
    estimated('real_text', f'tokenizer={row}', f'above_{other}_bits_per_byte', -1.0, 0.01)
    for row, other in falls
  ]
  paper = reproduce.read(leave_run(tmp_path / 'a', 'paper', rows))
  changed = reproduce.read(
    leave_run(tmp_path / 'b', 'paper', rows, **{'transformer.steps': 7, 'seed': 1})
  )
  assert not paper.changed
  assert changed.changed == {'seed': '1', 'transformer.steps': '7'}
  assert 'transformer.steps = 7' in changed.facts[1]
  for section, verdict in (
    (paper, 'reproduced'),
    (changed, 'direction holds at this scale'),
  ):
    verdicts = {one.claim.claim[:12]: one.verdict for one in section.claims}
    assert verdicts['On real text'] == verdict
    assert verdicts['A model of f'] == 'agrees with the theorem'


def test_a_folder_without_a_run_is_bad_input(tmp_path):
  with pytest.raises(InputError, match=r'contains no results\.json'):
    reproduce.report({tmp_path: ''}, tmp_path / 'report')
  assert not (tmp_path / 'report').exists()


COMMAND = """
import shutil, sys
print('[1/2] ngram', 'bar |', '[2/2] bound', sep='\\n', file=sys.stderr)
sys.exit({code}) if {code} else shutil.copytree({there!r}, {folder!r}, dirs_exist_ok=True)
"""


@pytest.fixture
def commands(monkeypatch, tmp_path_factory):
  """Recipes are scripts that end as `codes` says; what was run is kept in `ran`."""
  codes, ran = {}, []

  def command_of(name, scale, folder):
    ran.append(name)
    there = leave_run(tmp_path_factory.mktemp(name), scale)
    values = {'code': codes.get(name, 0), 'there': str(there), 'folder': str(folder)}
    return [sys.executable, '-c', COMMAND.format(**values)]

  monkeypatch.setattr(reproduce, 'command_of', command_of)
  return codes, ran


def demo():
  """The commands of `make demo`, each as a list of words; none of those that install."""
  done = subprocess.run(
    ['make', '--dry-run', 'demo'], cwd=reproduce.ROOT, capture_output=True, text=True, check=True
  )
  lines = done.stdout.replace('\\\n', ' ').splitlines()
  words = [shlex.split(line.split(' 2>&1')[0]) for line in lines if '-m experiments.' in line]
  return [line[line.index('-m') - 1 :] for line in words]


def test_the_demo_runs_a_part_of_every_paper_and_its_report_gathers_them():
  *runs, last = demo()
  folders = []
  for words in runs:
    given = dict(word[2:].split('=', 1) for word in words[3:] if word.startswith('--'))
    name = words[2].removeprefix('experiments.')
    config = importlib.import_module(f'configs.{name}').get_config(given['config'].split(':')[1])
    for field, value in given.items():
      if field.startswith('config.'):
        config.update_from_flattened_dict({field[7:]: ast.literal_eval(value)})
    reproduce.recipe_of(name).check(config)
    folders.append(given['workdir'])
  papers = [name for name in reproduce.RECIPES if name != 'matrix']
  assert sorted(pathlib.Path(folder).name for folder in folders) == sorted(papers)
  assert f'--gather={",".join(f"runs/demo/{name}" for name in papers)}' in last


def test_the_table_of_the_readme_is_what_was_recorded():
  readme = (reproduce.ROOT / 'README.md').read_text()
  recorded = documents.read()
  assert documents.with_table(readme, documents.table(recorded)) == readme
  assert (reproduce.ROOT / changes.PAGE).read_text() == documents.what_changed(recorded)
  for name, run in recorded.items():
    said = (reproduce.ROOT / documents.FOLDER / f'{name}.md').read_text()
    for verdict, count in run['verdicts'].items():
      assert verdict == 'not run here' or said.count(f'*{verdict}*') >= count
  pages = {path.stem for path in (reproduce.ROOT / documents.FOLDER).glob('*.md')}
  assert pages == recorded.keys() | {pathlib.Path(changes.PAGE).stem}


def test_every_correction_has_a_conclusion_and_every_conclusion_its_corrections():
  known = claims.corrections()
  named = [
    key for name in changes.PAPERS for one in claims.load(name)
    for key in one.before.get('corrected', ())
  ]  # fmt: skip
  assert set(named) == known.keys()
  assert all(set(one) == {'title', 'why'} for one in known.values())


def test_a_recorded_run_changes_its_own_page_and_line_alone(report, tmp_path):
  _, section = report
  (tmp_path / 'README.md').write_text(f'a\n{documents.BEGIN}\n{documents.END}\nb\n')
  documents.record([section], tmp_path)
  page = tmp_path / documents.FOLDER / 'markov.md'
  before = page.read_text()
  assert before.count('*agrees with the theorem*') == 1
  assert f'commit {provenance.commit()}' in before
  assert str(tmp_path) not in before
  documents.record([dataclasses.replace(section, name='matrix')], tmp_path)
  assert page.read_text() == before
  found = documents.read(tmp_path)
  assert list(found) == ['markov', 'matrix']
  assert sum(found['markov']['verdicts'].values()) == len(section.claims)
  first, *lines, last = (tmp_path / 'README.md').read_text().splitlines()
  assert (first, last) == ('a', 'b')
  verdicts = [line.split(' | ')[2] for line in lines[3:-1]]
  assert [text.startswith('[') for text in verdicts] == [
    name in found for name in reproduce.RECIPES
  ]
  assert (page.parent / 'matrix' / 'wide.png').exists()


@pytest.mark.parametrize('name', reproduce.RECIPES)
def test_every_table_has_a_weight(name):
  tables = importlib.import_module(f'configs.{name}').TABLES
  assert tuple(reproduce.MINUTES[name]) == tables


def test_recipes_run_once_and_say_how_far_they_are(commands, tmp_path, capfd):
  _, ran = commands
  found = reproduce.run_all(['markov'], 'cpu', tmp_path)
  assert found == {tmp_path / 'markov': ''}
  said = capfd.readouterr().err
  assert '== markov, ngram: table 1 of 7, about 10 minutes left' in said
  assert 'bar |' in said
  assert reproduce.run_all(['markov'], 'cpu', tmp_path) == found
  assert ran == ['markov']  # the second time nothing ran


def test_an_interrupted_recipe_is_ended(monkeypatch, tmp_path):
  waits = 'import sys, time; print("[1/2] ngram", file=sys.stderr, flush=True); time.sleep(600)'
  monkeypatch.setattr(reproduce, 'command_of', lambda *_: [sys.executable, '-c', waits])
  jobs = []
  begin = subprocess.Popen
  monkeypatch.setattr(subprocess, 'Popen', lambda *a, **k: jobs.append(begin(*a, **k)) or jobs[0])
  monkeypatch.setattr(reproduce.Progress, 'reaches', lambda *_: reproduce._stop())
  with pytest.raises(KeyboardInterrupt):
    reproduce.run_all(['markov'], 'cpu', tmp_path)
  assert jobs[0].returncode == -signal.SIGTERM


def test_a_run_of_another_scale_is_not_taken_for_this_one(commands, tmp_path):
  leave_run(tmp_path / 'markov', 'smoke')
  assert reproduce.finished('markov', 'smoke', tmp_path / 'markov')
  assert not reproduce.finished('markov', 'cpu', tmp_path / 'markov')
  leave_run(tmp_path / 'markov', 'smoke', rows=ROWS[:4])  # some of its tables
  assert not reproduce.finished('markov', 'smoke', tmp_path / 'markov')


def test_a_failing_recipe_is_named_and_the_others_are_reported(commands, tmp_path, capsys):
  codes, _ = commands
  codes['visual_unicode'] = 3
  found = reproduce.run_all(['visual_unicode', 'markov'], 'smoke', tmp_path)
  fault = found[tmp_path / 'visual_unicode']
  assert fault.startswith('visual_unicode ended with exit code 3')
  reproduce.report(found, tmp_path)
  text = (tmp_path / 'report.md').read_text()
  assert fault in text
  assert '## Toward a Theory of Tokenization' in text
  assert 'AGREES WITH THE THEOREM' in capsys.readouterr().out


def test_tables_of_an_unfinished_run_are_reported(tmp_path):
  folder = tmp_path / 'markov'
  config = runner.plain(markov.get_config('smoke'))
  (folder / 'tables').mkdir(parents=True)
  results.write_json(folder / 'config.json', {k: v for k, v in config.items() if k != 'tables'})
  made = {'commit': 'a', 'cores': '2', 'resumed': 'ngram'}
  results.write_rows(folder / 'tables' / 'ngram.json', ROWS[:2], 30.0, {}, made)
  section = reproduce.read(folder, 'markov ended with exit code 1.')
  assert section.minutes == 0.5
  assert section.facts[-3:] == [
    'Measured with commit a, 2 CPU cores.',
    'Of ngram, minutes are of the last call alone.',
    'markov ended with exit code 1.',
  ]
  assert next(one.verdict for one in section.judged) == 'agrees with the theorem'


def test_the_time_left_follows_the_pace(monkeypatch):
  now = iter([0.0, 0.0, 240.0, 300.0])
  monkeypatch.setattr(minutes.time, 'monotonic', lambda: next(now))
  left = minutes.TimeLeft({'a': 2.0, 'b': 4.0, 'c': 0.1}, None)
  assert left.reaches('a') == 'time left unknown'
  assert left.reaches('b') == 'about 8 minutes left'  # 4.1 at two minutes a minute
  assert left.reaches('c') == 'about a minute left or less'
