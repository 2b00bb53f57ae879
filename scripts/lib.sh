# What the scripts share; they source it. It goes to the root of the project.
CDPATH="" cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python

# fail MESSAGE: one line, and the exit code of wrong use.
fail() {
    echo "$(basename "$0"): error: $1" >&2
    exit 2
}

needs_python() {
    [ -x $python ] || fail "there is no .venv yet: run bash scripts/setup.sh"
}

# --- batches: many runs, then a report that compares them ---------------------------------------
#
# A batch can be stopped at any time. Started again with the same environment, it skips the runs
# that are finished and goes on with the others where they were; with another it stops at the first
# run of other flags. Start no second batch in the same RUNS beside it. Environment:
#
#   DATA   the train folder          (data/train)    RUNS   folder of the runs  (runs)
#   SEEDS  seeds of each condition   ("42")          FOLDS  folds of each run   (5)
#   EPOCHS epochs of each run        (8)             SIZE   height and width    ("128 96")
#   PROCESSES  runs side by side, each on one core  (1)
#   EXTRA  more flags for train.py, such as --workers 4 on four GPUs (none)
#   KEEP   last or best epoch        (last)
#
# KEEP is the last epoch because the best one is chosen on the validation people, which flatters
# the score: three models, which choose three times, more than one.
batch() {
    DATA=${DATA:-data/train} RUNS=${RUNS:-runs} SEEDS=${SEEDS:-42} FOLDS=${FOLDS:-5}
    EPOCHS=${EPOCHS:-8} SIZE=${SIZE:-128 96} EXTRA=${EXTRA:-} KEEP=${KEEP:-last}
    PROCESSES=${PROCESSES:-1} conditions=() members=()
    [[ $PROCESSES =~ ^[1-9][0-9]*$ ]] || fail "PROCESSES is $PROCESSES; give a number of runs"
    needs_python
    trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
    [ "$PROCESSES" -le 1 ] || ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 403)) ||
        fail "several PROCESSES need bash 4.3, this is $BASH_VERSION: install it, or PROCESSES=1"
}

# start COMMAND...: runs it; in the background, as soon as fewer than PROCESSES run, if there may be
# several. Fails if one has failed: one that has ended stays in `jobs -p` until wait tells how.
start() {
    if [ "$PROCESSES" -le 1 ]; then
        "$@"
    else
        while [ "$(jobs -p | wc -l)" -ge "$PROCESSES" ]; do wait -n; done
        OMP_NUM_THREADS=1 "$@" &
    fi
}

# wait_for_runs: until all that were started have ended.
wait_for_runs() {
    for pid in $(jobs -p); do wait "$pid"; done
}

# train NAME FLAGS...: one run, in $RUNS/NAME.
train() {
    local name=$1 run=$RUNS/$1 done words
    shift
    # shellcheck disable=SC2206
    words=(--k_fold "$FOLDS" --resize $SIZE --epochs $EPOCHS --keep "$KEEP" $EXTRA "$@")
    if [ -f "$run/config.json" ] &&
        ! tr -d "'" < "$run/config.json" | grep -qF -- "${words[*]}\""; then
        fail "$run was begun with other flags than ${words[*]}; choose another RUNS"
    fi
    done=$(grep -c '"fold": ' "$run/metrics.json" 2>/dev/null || true)
    if [ -f "$run/metrics.json" ] && [ "$done" -ge "$FOLDS" ]; then
        echo "$run: finished already"
    elif [ -f "$run/config.json" ]; then
        # shellcheck disable=SC2046  # a run keeps neither: they are of this machine
        start $python train.py --resume "$run" --data_dir "$DATA" \
            $(grep -oE -- '--(device|wandb) [^ ]+' <<< "$EXTRA" || true)
    else
        start $python train.py --data_dir "$DATA" --model_dir "$RUNS" --name "$name" "${words[@]}"
    fi
}

# condition NAME FLAGS...: one run for each seed; the report takes them together.
condition() {
    local name=$1 seed folders=""
    shift
    for seed in $SEEDS; do
        train "$name-s$seed" --seed "$seed" "$@"
        folders+=${folders:+,}$RUNS/$name-s$seed
    done
    conditions+=("$folders")
}

# member NAME FLAGS...: one run, for average.
member() {
    train "$@"
    members+=("$RUNS/$1")
}

# average NAME: scores the mean of the members out of fold, in $RUNS/NAME, and writes the submission
# for EVAL (data/eval) to OUT (output/NAME), over flips and zooms (TTA, both). A mean is less sure
# of a rare class than its members: DECISION (prior) weighs it by the frequency of the classes.
average() {
    local how=(--model_dir "${members[@]}" --tta "${TTA:-both}" --decision "${DECISION:-prior}")
    wait_for_runs
    $python inference.py "${how[@]}" --train_dir "$DATA" --oof "$RUNS/$1"
    $python inference.py "${how[@]}" --data_dir "${EVAL:-data/eval}" \
        --output_dir "${OUT:-output/$1}"
}

# report PAGE: compares all conditions with the first of them.
report() {
    wait_for_runs
    $python report.py --data_dir "$DATA" --model_dir "${conditions[@]}" --out "$1"
}
