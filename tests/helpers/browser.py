# SPDX-License-Identifier: Apache-2.0
"""Renders a page in a headless browser, for the screen and for printing."""

import html
import json
import pathlib
import re
import shutil
import subprocess

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
# The page in a frame; a violation of its own policy would be a fetch.
FRAME = """<!doctype html><body style="margin:0"><script>
  const faults = [];
</script>
<iframe id="frame" style="border:0;width:{width}px;height:3000px" srcdoc="{page}"></iframe>
<pre id="found"></pre>
<script>
  addEventListener('load', () => {{
    const inside = document.getElementById('frame').contentWindow;
    const root = inside.document.documentElement;
    document.getElementById('found').textContent = JSON.stringify({{
      width: root.clientWidth,
      needed: root.scrollWidth,
      fetched: inside.performance.getEntriesByType('resource').map(one => one.name),
      unseen: [...inside.document.images].filter(one => !one.naturalWidth).length,
    }});
  }});
</script>"""


def look(page: pathlib.Path, folder: pathlib.Path, width: int) -> tuple[dict, str]:
  """Widths in pixels, what was fetched, pictures not drawn; and what the console says."""
  frame = folder / 'frame.html'
  frame.write_text(FRAME.format(page=html.escape(page.read_text()), width=width))
  done = _run(folder, '--dump-dom', frame.as_uri())
  found = done.stdout.partition('<pre id="found">')[2].partition('</pre>')[0]
  console = [line for line in done.stderr.splitlines() if 'CONSOLE' in line]
  return json.loads(html.unescape(found)), '\n'.join(console)


def printed(page: pathlib.Path, folder: pathlib.Path) -> int:
  """The number of sheets that the page takes on paper."""
  sheets = folder / 'printed.pdf'
  _run(folder, f'--print-to-pdf={sheets}', page.as_uri())
  return len(re.findall(rb'/Type\s*/Page\b', sheets.read_bytes()))


def _run(folder: pathlib.Path, *flags: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--enable-logging=stderr',
     f'--user-data-dir={folder / "profile"}', *flags],
    capture_output=True, text=True, check=True, timeout=120,
  )  # fmt: skip
