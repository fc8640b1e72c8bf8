#!/usr/bin/env bash
# A recipe on TPU slices of a GKE cluster, by xpk. Change the lines above the blank line.
set -euo pipefail
CLUSTER=CLUSTER
IMAGE=IMAGE     # holds this project, installed with the extra tpu
TYPE=v5p-512    # of 256 chips: v5p-512, v5litepod-256, v6e-256
SLICES=1
RUN='python -m experiments.equal_info --distributed
  --config=equal_info:paper --workdir=/mnt/runs/equal_info'  # a folder all hosts see

xpk workload create --cluster="$CLUSTER" --workload=anytoken --docker-image="$IMAGE" \
  --tpu-type="$TYPE" --num-slices="$SLICES" --max-restarts=10 --command="${RUN//$'\n'/ }"
