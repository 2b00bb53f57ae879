#!/usr/bin/env bash
# Trains the folds of one run side by side, one fold a GPU at a time, in one run folder:
#
#   GPUS="0 1 2 3" bash scripts/folds_on_gpus.sh --k_fold 5 --name big --model resnet50
#
# All words go to train.py; --k_fold and --name must be among them. GPUS defaults to all GPUs of
# the machine. The fold that ends last writes oof.csv and metrics.json. Started again after a
# stop, finished folds are skipped and the others go on where they were.
set -euo pipefail
cd "$(dirname "$0")/.."

folds=$(printf '%s\n' "$@" | grep -A1 -x -- '--k_fold' | tail -n 1 || true)
if ! [[ $folds =~ ^[0-9]+$ ]]; then
    echo "folds_on_gpus.sh: error: give --k_fold N among the flags" >&2
    exit 2
fi
read -ra gpus <<< "${GPUS:-$(nvidia-smi --query-gpu=index --format=csv,noheader | xargs)}"
if [ "${#gpus[@]}" -eq 0 ]; then
    echo "folds_on_gpus.sh: error: no GPU found; name them: GPUS=\"0 1\" bash $0 ..." >&2
    exit 2
fi

# GPU number i takes the folds i, i + count, i + 2 * count ...
pids=()
for i in "${!gpus[@]}"; do
    mine=$(seq "$i" "${#gpus[@]}" $((folds - 1)) | xargs)
    [ -n "$mine" ] || continue
    # shellcheck disable=SC2086
    CUDA_VISIBLE_DEVICES=${gpus[$i]} .venv/bin/python train.py "$@" --fold $mine &
    pids+=($!)
done
trap 'kill "${pids[@]}" 2>/dev/null' INT TERM
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit $status
