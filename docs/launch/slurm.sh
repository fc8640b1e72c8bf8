#!/usr/bin/env bash
# A recipe on GPUs under SLURM, a process a card: sbatch docs/launch/slurm.sh
# Change the numbers of nodes and GPUs, and the lines above the blank line.
#SBATCH --job-name=anytoken
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
RUN=(python -m experiments.equal_info --distributed
  --config=equal_info:paper "--workdir=$HOME/runs/equal_info")  # a folder all nodes see

# Time is up, or the job must make room: every process saves, and a new job resumes the run.
srun --kill-on-bad-exit=1 "${RUN[@]}"
