#!/usr/bin/env bash
# best_small.sh and two models more, averaged: larger photos, a larger network; a submission.
#
#   DATA=data/train EVAL=data/eval RUNS=runs OUT=output/best bash scripts/best.sh
#
# What best_small.sh trained into RUNS is taken as it is. Stopped and started again, it goes on
# where it was. PROCESSES, KEEP and EXTRA: lib.sh. Out of fold on 421 people, by the last epochs:
# best-lite1 .557, best-large .540, the mean of all six by the prior, over flips and zooms, .605,
# which is no difference larger than .02 from that of the four: +.008 [-.006, +.021].
set -euo pipefail
source "$(dirname "$0")/lib.sh"
PROCESSES=${PROCESSES:-2} FOLDS=6 EPOCHS=9 SIZE="128 96"
batch
$python scripts/fetch_weights.py --also lite1
shared="--shared_backbone --augmentation strong --age_mse 0.3"
for seed in 1 42; do
    member best-shared-s$seed --seed $seed $shared --crop center
    member best-face-s$seed --seed $seed $shared --crop face
done
member best-lite1-s1 --seed 1 $shared --crop face --model tf_efficientnet_lite1
SIZE="160 120"
member best-large-s1 --seed 1 $shared --crop face
average best
