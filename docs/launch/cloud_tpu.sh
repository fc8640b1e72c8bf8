#!/usr/bin/env bash
# A recipe on all hosts of a Cloud TPU slice. Change the lines above the blank line.
set -euo pipefail
NAME=anytoken
ZONE=us-east5-a
TYPE=v5p-512            # of 256 chips: v5p-512, v5litepod-256, v6e-256
VERSION=v2-alpha-tpuv5  # for these: v2-alpha-tpuv5, v2-alpha-tpuv5-lite, v2-alpha-tpuv6e
RUN='python -m experiments.equal_info --distributed
  --config=equal_info:paper --workdir=/mnt/runs/equal_info'  # a folder all hosts see

SETUP='python3 -m pip install --quiet uv && python3 -m uv venv --quiet --python 3.11 --allow-existing
  && . .venv/bin/activate && python3 -m uv pip install --quiet -r requirements.lock -e ".[tpu]"'
tpu() { gcloud compute tpus tpu-vm "$@" --zone="$ZONE"; }
tpu describe "$NAME" > /dev/null 2>&1 ||
  tpu create "$NAME" --accelerator-type="$TYPE" --version="$VERSION"
tpu scp --recurse --worker=all . "$NAME:anytoken"
tpu ssh "$NAME" --worker=all --command="cd anytoken && ${SETUP//$'\n'/ } && ${RUN//$'\n'/ }"
