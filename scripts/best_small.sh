#!/usr/bin/env bash
# Two models that differ, averaged: the best for two cores and an hour, and its submission.
#
#   bash scripts/best_small.sh
#   DATA=data/train EVAL=data/eval RUNS=runs OUT=output/best bash scripts/best_small.sh
#
# It needs no GPU and no mattes. Stopped and started again, it goes on where it was.
#
# One shared run alone has .540 (seed 1) and .543 (seed 42) on 421 people; the average is not measured.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
PROCESSES=${PROCESSES:-2} FOLDS=${FOLDS:-6} EPOCHS=${EPOCHS:-9}
EXTRA=${EXTRA:---seed 1 --crop center --augmentation strong --age_mse 0.3}
batch
member best-shared --shared_backbone
member best-joint
average best_small
