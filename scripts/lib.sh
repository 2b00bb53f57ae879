# Shared by the batch scripts, which source it. Runs are resumable: a finished run is skipped, an
# unfinished one goes on where it was. Environment:
#
#   DATA   the train folder          (data/train)    RUNS   folder of the runs  (runs)
#   SEEDS  seeds of each condition   ("42")          FOLDS  folds of each run   (5)
#   EPOCHS epochs of each run        (8)             SIZE   height and width    ("128 96")
#   GPUS   GPUs for the folds        (none: one process, on whatever --device auto finds)
#   EXTRA  more flags of train.py    (none)         KEEP   last or best epoch   (last)
#
# The last epoch, because the best one is chosen on the very people who are scored: that flatters,
# and three models, which choose three times, more than one.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
DATA=${DATA:-data/train} RUNS=${RUNS:-runs} SEEDS=${SEEDS:-42} FOLDS=${FOLDS:-5}
EPOCHS=${EPOCHS:-8} SIZE=${SIZE:-128 96} GPUS=${GPUS:-} EXTRA=${EXTRA:-} KEEP=${KEEP:-last}
python=.venv/bin/python

# train NAME FLAGS...: one run of one condition and seed, in $RUNS/NAME.
train() {
    local name=$1 run=$RUNS/$1
    shift
    if [ -f "$run/metrics.json" ]; then
        echo "$run: finished already"
    elif [ -f "$run/config.json" ] && [ -z "$GPUS" ]; then
        $python train.py --resume "$run"
    elif [ -n "$GPUS" ]; then
        # shellcheck disable=SC2086
        bash scripts/folds_on_gpus.sh --data_dir "$DATA" --model_dir "$RUNS" --name "$name" \
            --k_fold "$FOLDS" --resize $SIZE --epochs $EPOCHS --keep "$KEEP" $EXTRA "$@"
    else
        # shellcheck disable=SC2086
        $python train.py --data_dir "$DATA" --model_dir "$RUNS" --name "$name" \
            --k_fold "$FOLDS" --resize $SIZE --epochs $EPOCHS --keep "$KEEP" $EXTRA "$@"
    fi
}

# seeds NAME FLAGS...: one run a seed; its folders, joined by commas, are added to $configurations.
configurations=()
seeds() {
    local name=$1 seed folders=""
    shift
    for seed in $SEEDS; do
        train "$name-s$seed" --seed "$seed" "$@"
        folders+=${folders:+,}$RUNS/$name-s$seed
    done
    configurations+=("$folders")
}

# report PAGE: compares $configurations with the first of them.
report() {
    $python report.py --data_dir "$DATA" --model_dir "${configurations[@]}" --out "$1"
}
