#!/usr/bin/env bash
# Nine models that differ, averaged: a night on 2 cores, or an hour on one GPU, and a submission.
#
#   bash scripts/best.sh
#   DATA=data/train EVAL=data/eval RUNS=runs OUT=output/best bash scripts/best.sh
#
# The members of best_small.sh, which are not trained again if they are in RUNS, then other
# layouts, larger photos, larger networks, ages as distributions and the background removed.
# SCORE: its out-of-fold score has not been measured yet; that of best_small.sh stands there.
# Stopped and started again it goes on where it was. Other variables: lib.sh.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
.venv/bin/python scripts/fetch_weights.py --also lite1 lite2
PROCESSES=${PROCESSES:-2} FOLDS=${FOLDS:-6} EPOCHS=${EPOCHS:-9}
EXTRA=${EXTRA:---seed 1 --crop center --augmentation strong}
batch
SIZE="128 96"
member best-shared --shared_backbone --age_mse 0.3
member best-joint --age_mse 0.3
SIZE="160 120"
member best-years --shared_backbone --age_head dldl
member best-ordinal --shared_backbone --age_head corn
member best-split --split_heads --epochs 6 age=9
member best-person --shared_backbone --bg rembg_grabcut --age_head dldl
member best-lite1 --shared_backbone --model tf_efficientnet_lite1
member best-lite1-joint --model tf_efficientnet_lite1
member best-lite2 --shared_backbone --model tf_efficientnet_lite2 --age_head dldl
average best
