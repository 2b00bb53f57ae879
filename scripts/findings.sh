#!/usr/bin/env bash
# The two questions of the project, answered with fair controls: docs/findings.md is its result.
#
#   DATA=data/train RUNS=runs/findings bash scripts/findings.sh
#
# Three models take three times the steps of one, and two views twice. So the rivals of three
# models are one model of three times the epochs and three joint models averaged; the rival of two
# views is the photo alone with twice the epochs. SEEDS (1 2 3) change the folds too. About 4 hours
# on 2 cores for 421 people. First the whole of the first answers, seed by seed, then the other
# layouts; stopped and started again it goes on where it was. Other variables: lib.sh.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
SEEDS=${SEEDS:-1 2 3} FOLDS=${FOLDS:-3} EPOCHS=${EPOCHS:-6} SIZE=${SIZE:-96 72}
PROCESSES=${PROCESSES:-2} extra=${EXTRA:-}
EXTRA="--crop center $extra"
batch
view=rembg_grabcut

first() {
    condition joint-none
    condition split-none --split_heads
    condition joint-$view --bg $view
    condition joint-both --bg none+$view
    condition joint-none-twice --epochs $((EPOCHS * 2))
    condition joint-none-thrice --epochs $((EPOCHS * 3))
    averaged
}

# averaged: for each seed, the mean of its joint model and of two more.
averaged() {
    local seed more run mean folders=""
    for seed in $SEEDS; do
        for more in 1 2; do
            train "joint-none-s$seed-$more" --seed "$((seed * 100 + more))"
        done
    done
    wait_for_runs
    for seed in $SEEDS; do
        run=$RUNS/joint-none-s$seed mean=$RUNS/joint-none-averaged-s$seed
        [ -f "$mean/config.json" ] ||
            $python inference.py --model_dir "$run" "$run-1" "$run-2" --train_dir "$DATA" \
                --oof "$mean"
        folders+=${folders:+,}$mean
    done
    conditions+=("$folders")
}

others() {
    condition shared-none --shared_backbone
    condition shared-$view --shared_backbone --bg $view
    condition shared-both --shared_backbone --bg none+$view
    condition split-$view --split_heads --bg $view
    condition split-both --split_heads --bg none+$view
}

# control BIAS: trains on drawn people, of whom so many have a background of their gender and age,
# and scores others, whose background tells nothing, with and without it. GrabCut is quick.
control() {
    local data=$RUNS/drawn-$1 seed view run
    [ -d "$data" ] || $python demo.py --out "$data" --people 120 --background_bias "$1"
    for seed in $SEEDS; do
        for view in none grabcut; do
            DATA=$data/train FOLDS=0 EPOCHS=10 SIZE="64 48" EXTRA=$extra \
                train "bias-$1-$view-s$seed" --seed "$seed" --bg "$view" --val_ratio 0
        done
    done
    wait_for_runs
    for run in "$RUNS/bias-$1-"*; do
        $python inference.py --model_dir "$run" --data_dir "$data/eval" --output_dir "$run/eval"
        $python scripts/score.py "$run/eval/output.csv" "$data/truth.csv"
    done
}

# against RIVAL OURS: a page on two conditions, $RUNS/RIVAL-OURS.html.
against() {
    local name seed folders
    conditions=()
    for name in "$@"; do
        folders=""
        for seed in $SEEDS; do folders+=${folders:+,}$RUNS/$name-s$seed; done
        conditions+=("$folders")
    done
    report "$RUNS/$1-$2.html"
    pages+=("$RUNS/$1-$2.html")
}

all=$SEEDS
for part in first others; do
    for seed in $all; do SEEDS=$seed $part; done
done
wait_for_runs
conditions=() SEEDS=$all
first
others
report "${PAGE:-findings.html}"

# Each idea against its rivals.
pages=()
for rival in joint-none joint-none-thrice joint-none-averaged shared-none; do
    against $rival split-none
done
for rival in joint-none joint-none-twice joint-$view; do
    against $rival joint-both
done
against joint-none joint-$view
against joint-none shared-none
$python scripts/intervals.py "${pages[@]}" --out "$RUNS/findings.svg"
control 0
control 0.9
