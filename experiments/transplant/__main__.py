# SPDX-License-Identifier: Apache-2.0
"""python -m experiments.transplant; see `experiments.command_line`."""

from experiments import command_line

if __name__ == '__main__':
  command_line.main('transplant')
