# SPDX-License-Identifier: Apache-2.0
"""The tiny model, trained by several processes: python -m tests.joined WORKDIR STEPS MESH."""

import json
import sys

from lib.train import processes, sharding
from tests import tiny

if __name__ == '__main__':
  processes.join()
  tiny.run(sys.argv[1], int(sys.argv[2]), sharding.make_mesh(json.loads(sys.argv[3])))
