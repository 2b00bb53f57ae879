#!/usr/bin/env bash
# Trains the folds of one run on several GPUs at once, one fold a GPU at a time:
#
#   GPUS="0 1 2 3" bash scripts/folds_on_gpus.sh --k_fold 5 --name big --model resnet50
#
# All flags go to train.py; --k_fold must be among them. GPUS defaults to all GPUs of the machine.
# The process that ends last writes oof.csv and metrics.json. Started again after a stop, it skips
# the finished folds and goes on with the others where they were.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

# The number of folds: --k_fold N or --k_fold=N.
folds="" before=""
for word in "$@"; do
    case "$before $word" in
        *" --k_fold="*) folds=${word#*=} ;;
        "--k_fold "*) folds=$word ;;
    esac
    before=$word
done
[[ $folds =~ ^[1-9][0-9]*$ ]] || fail "give --k_fold N, the number of folds, among the flags"

# shellcheck disable=SC2206
gpus=(${GPUS:-$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null || true)})
[ "${#gpus[@]}" -gt 0 ] || fail "no GPU found; name them: GPUS=\"0 1\" bash $0 ..."

pids=()
for i in "${!gpus[@]}"; do
    mine=$(folds_of "$i" "${#gpus[@]}" "$folds")
    [ -n "$mine" ] || continue
    # shellcheck disable=SC2086
    CUDA_VISIBLE_DEVICES=${gpus[$i]} $python train.py "$@" --fold $mine &
    pids+=($!)
done
wait_for_all "${pids[@]}"
