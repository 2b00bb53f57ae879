#!/usr/bin/env bash
# The best that two cores and an hour can do on a few hundred people: one run, its submission.
#
#   bash scripts/best_small.sh
#   DATA=data/train EVAL=data/eval RUNS=runs OUT=output/best bash scripts/best_small.sh
#
# No GPU, no mattes. Resumable: folds that are finished are skipped. PROCESSES (2) train the folds
# side by side, each on one core, which is faster than one process on all.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${DATA:-data/train} eval=${EVAL:-data/eval} runs=${RUNS:-runs} out=${OUT:-output/best}
processes=${PROCESSES:-2} folds=6
python=.venv/bin/python

train() {
    $python train.py --data_dir "$data" --model_dir "$runs" --name best \
        --k_fold $folds --epochs 9 --resize 128 96 \
        --crop center \
        --shared_backbone \
        --augmentation strong \
        --age_mse 0.3 \
        --fold "$@"
}

# Process p trains the folds p, p + PROCESSES, ...
export OMP_NUM_THREADS=1
pids=()
for ((p = 0; p < processes; p++)); do
    # shellcheck disable=SC2046
    train $(seq "$p" "$processes" $((folds - 1))) &
    pids+=($!)
done
trap 'kill "${pids[@]}" 2>/dev/null || true' INT TERM
for pid in "${pids[@]}"; do
    wait "$pid"
done
unset OMP_NUM_THREADS

# Every photo is predicted twice, once mirrored: first out of fold, for an honest score, then eval.
$python inference.py --model_dir "$runs/best" --train_dir "$data" --tta flip --oof "$runs/best-flip"
$python inference.py --model_dir "$runs/best" --data_dir "$eval" --tta flip --output_dir "$out"
