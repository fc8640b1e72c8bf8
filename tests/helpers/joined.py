# SPDX-License-Identifier: Apache-2.0
"""The tiny model, trained by several processes on text in lanes, of which each reads its own.

python -m tests.helpers.joined WORKDIR STEPS MESH. Leaves documents-P.txt: documents that
process P has read.
"""

import json
import pathlib
import sys

import jax

from lib.data import pipeline
from lib.parallel import processes, sharding
from tests.helpers import tiny

if __name__ == '__main__':
  processes.join()
  pipeline._reading = lambda readers: pipeline.AT_HAND  # none read ahead, so that they count
  folder, texts = pathlib.Path(sys.argv[1]), tiny.Texts()
  mesh = sharding.make_mesh(json.loads(sys.argv[3]))
  tiny.run(folder, int(sys.argv[2]), mesh, data=tiny.lane_batches(texts))
  (folder / f'documents-{jax.process_index()}.txt').write_text(str(texts.read))
