#!/usr/bin/env bash
# best_small.sh and seven models more, averaged: a night on 2 cores, and a submission.
#
#   DATA=data/train EVAL=data/eval RUNS=runs OUT=output/best bash scripts/best.sh
#
# Other layouts, larger photos and networks, ages as distributions, the background removed. Nobody
# has measured its score yet. What best_small.sh trained into RUNS is taken as it is. Stopped and
# started again, it goes on where it was. Other variables: lib.sh.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
$python scripts/fetch_weights.py --also lite1 lite2
PROCESSES=${PROCESSES:-2} EXTRA=${EXTRA:---crop face --augmentation strong}
batch
FOLDS=6 EPOCHS=9 SIZE="128 96"
for seed in 1 42; do
    member best-shared-s$seed --seed $seed --shared_backbone --age_mse 0.3 --crop center
    member best-face-s$seed --seed $seed --shared_backbone --age_mse 0.3
done
SIZE="160 120"
member best-joint
member best-split --split_heads --epochs 6 age=9
member best-years --shared_backbone --age_head dldl
member best-ordinal --shared_backbone --age_head corn
member best-person --shared_backbone --bg rembg_grabcut
member best-lite1 --shared_backbone --model tf_efficientnet_lite1
member best-lite2 --shared_backbone --model tf_efficientnet_lite2
average best
