#!/usr/bin/env bash
# One change at a time to a run of one backbone with three heads: what raises the score?
#
#   DATA=data/train RUNS=runs/findings bash scripts/levers.sh
#
# The first condition is shared-none of scripts/findings.sh, trained here if it is not there. A
# change takes 2 minutes for 421 people on 2 cores; with one seed a page says "these two runs", so
# add SEEDS for what looks good. LEVERS chooses some by name. The weights of lite1 and lite2 are
# fetched first. Other variables: lib.sh.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
SEEDS=${SEEDS:-1} FOLDS=${FOLDS:-3} EPOCHS=${EPOCHS:-6} SIZE=${SIZE:-96 72}
PROCESSES=${PROCESSES:-2} EXTRA="--crop center ${EXTRA:-}"
batch
known=""

# lever NAME FLAGS...: one change, if LEVERS is empty or names it.
lever() {
    local name=$1
    known+=" $name "
    shift
    if [[ -z ${LEVERS:-} || " $LEVERS " == *" $name "* ]]; then
        condition "lever-$name" --shared_backbone "$@"
    fi
}

if [[ -z ${LEVERS:-} || $LEVERS == *lite* ]]; then
    $python scripts/fetch_weights.py --also lite1 lite2
fi
condition shared-none --shared_backbone
# How age is learned.
lever age_mse --age_mse 0.3
# Rare classes.
lever weighted --class_weights 0 age=0.5
lever old_from --old_from 58
# More pixels, larger networks.
lever pixels --resize 128 96
lever face --crop face
lever lite1 --model tf_efficientnet_lite1
lever lite2 --model tf_efficientnet_lite2
# Regularization.
lever strong --augmentation strong
lever ema --ema 0.99
lever mixup --mixup 0.2
lever drop --drop_rate 0.3
lever slow --lr 3e-4

for name in ${LEVERS:-}; do
    [[ $known == *" $name "* ]] || fail "LEVERS has $name; choose from$known"
done
report "${PAGE:-levers.html}"
