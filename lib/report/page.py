# SPDX-License-Identifier: Apache-2.0
"""A report made of blocks, as one self-contained HTML file and as Markdown."""

import base64
import os
import pathlib
import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

STYLE = pathlib.Path(__file__).with_suffix('.css')
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # nothing is fetched
NUMBER = re.compile(r'[-+−<–]? ?[\d.,]+( |$|%|e)|[+−]\d|[-–]$')


class Heading(NamedTuple):
  """A heading; 1 is the title. A link to '#anchor' leads to it."""

  words: str
  level: int = 2
  anchor: str = ''


class Text(NamedTuple):
  """A paragraph, after its verdict if it has one; `soft` paragraphs can be skipped."""

  words: str
  verdict: str = ''
  soft: bool = False


class Code(NamedTuple):
  """Commands or addresses, one per line."""

  lines: Sequence[str]


class Grid(NamedTuple):
  """A table: a header and rows of cells; `looks` colour the first cell of each row."""

  cells: Sequence[Sequence[str]]
  looks: Sequence[str] = ()


class Picture(NamedTuple):
  """A PNG file and its caption."""

  path: pathlib.Path
  caption: str


class Fold(NamedTuple):
  """Blocks that are folded until a reader opens them."""

  title: str
  blocks: Sequence['Block']


class Card(NamedTuple):
  """Blocks about one sentence; `look` is good, fair, bad or none; `link` is an anchor."""

  title: str
  look: str
  blocks: Sequence['Block']
  link: str = ''


Block = Heading | Text | Code | Grid | Picture | Fold | Card


def html(title: str, blocks: Sequence[Block]) -> str:
  """The page, with its pictures embedded; a browser loads nothing else."""
  head = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
    f'<title>{escape(title)}</title>\n<style>\n{STYLE.read_text()}</style>\n</head>\n<body>\n',
  )
  return '\n'.join(head) + _html(blocks) + '\n</body>\n</html>\n'


def _html(blocks: Sequence[Block]) -> str:
  return '\n'.join(map(_element, blocks))


def _element(block: Block) -> str:
  match block:
    case Heading(words, level, anchor):
      return f'<h{level}{f""" id="{anchor}" """.rstrip() * bool(anchor)}>{_words(words)}</h{level}>'
    case Text(words, verdict, soft):
      lead = f'<span class="verdict">{escape(verdict)}</span> ' * bool(verdict)
      return f'<p{" class=soft" * soft}>{lead}{_words(words)}</p>'
    case Code(lines):
      return '<pre><code>' + escape('\n'.join(lines)) + '</code></pre>'
    case Grid(cells, looks):
      looks = ['', *looks] if looks else [''] * len(cells)
      right = [
        any(NUMBER.match(line[place]) for line in cells[1:]) for place in range(len(cells[0]))
      ]
      lines = []
      for tag, texts, look in zip(['th', *['td'] * (len(cells) - 1)], cells, looks, strict=True):
        marks = [look, *['number' * one for one in right[1:]]]
        marks = [f' class="{mark}"' * bool(mark) for mark in marks]
        cell = lambda mark, text, tag=tag: f'<{tag}{mark}>{_words(text)}</{tag}>'
        lines.append(''.join(map(cell, marks, texts)))
      inside = '\n'.join(f'<tr>{line}</tr>' for line in lines)
      return f'<div class="scroll"><table>\n{inside}\n</table></div>'
    case Picture(path, caption):
      data = base64.b64encode(path.read_bytes()).decode()
      source = f'data:image/png;base64,{data}'
      return (
        f'<figure><img alt="{escape(caption)}" src="{source}">'
        f'<figcaption>{_words(caption)}</figcaption></figure>'
      )
    case Fold(title, inner):
      return f'<details><summary>{_words(title)}</summary>\n{_html(inner)}\n</details>'
    case Card(title, look, inner, link):
      head = f'<a href="#{link}">{_words(title)}</a>' if link else _words(title)
      return f'<article class="{look}">\n<p>{head}</p>\n{_html(inner)}\n</article>'


def _words(text: str) -> str:
  """Escaped text, with `code` in back quotes, which can wrap after its separators."""
  parts = re.split('`([^`]*)`', text)
  code = lambda part: re.sub('([,/_=])', r'\1<wbr>', escape(part))
  return ''.join(
    f'<code>{code(part)}</code>' if index % 2 else escape(part) for index, part in enumerate(parts)
  )


def markdown(blocks: Sequence[Block], folder: pathlib.Path) -> str:
  """The same in Markdown for a file in `folder`, with links to the pictures."""
  return '\n\n'.join(_lines(block, folder) for block in blocks) + '\n'


def _lines(block: Block, folder: pathlib.Path) -> str:
  match block:
    case Heading(words, level, _):
      return f'{"#" * level} {words}'
    case Text(words, verdict, _):
      return f'*{verdict}* {words}' if verdict else words
    case Code(lines):
      return '\n'.join(['```', *lines, '```'])
    case Grid(cells, _):
      return ruled(cells)
    case Picture(path, caption):
      return f'![{caption}]({os.path.relpath(path, folder)})'
    case Fold(title, inner):
      inside = markdown(inner, folder)
      return f'<details><summary>{escape(title)}</summary>\n\n{inside}\n</details>'
    case Card(title, _, inner, _):
      return '\n\n'.join([f'**{title}**', *(_lines(one, folder) for one in inner)])


def ruled(cells: Sequence[Sequence[str]], align: bool = True) -> str:
  """A head and lines of cells as a Markdown table, its columns aligned or as narrow as they go."""
  safe = [[text.replace('|', r'\|') for text in line] for line in cells]
  widths = [max(map(len, column)) if align else 3 for column in zip(*safe)]
  lines = [safe[0], ['-' * width for width in widths], *safe[1:]]
  padded = [[text.ljust(width) for text, width in zip(line, widths)] for line in lines]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in padded)
