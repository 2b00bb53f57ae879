#!/usr/bin/env bash
# Trains the folds of one run as a SLURM array, one fold a job, on any machines that share this
# folder:
#
#   sbatch --array=0-4 scripts/folds_on_slurm.sh --k_fold 5 --name big --model resnet50
#
# All flags go to train.py; --k_fold must be among them. A job that is pre-empted goes back into
# the queue and later goes on where it was. The job that ends last writes oof.csv.
#SBATCH --job-name=folds
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
#SBATCH --output=slurm-%A_%a.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"  # SLURM runs a copy of this file from elsewhere

.venv/bin/python train.py "$@" --fold "$SLURM_ARRAY_TASK_ID" &
child=$!
trap 'kill -TERM "$child"; wait "$child" || true; scontrol requeue "$SLURM_JOB_ID"' TERM
wait "$child"
