#!/usr/bin/env bash
# One submission from the best runs: those with the highest out-of-fold macro F1 are averaged.
# Then the out-of-fold score of the average goes to $OUT/ensemble, which report.py reads like a run.
#
#   bash scripts/ensemble.sh                 the best 3 of RUNS (runs)
#   BEST=5 EVAL=data/eval OUT=output bash scripts/ensemble.sh runs/exp runs/exp2 ...
#   DATA=data/train bash scripts/ensemble.sh       if the training photos have been moved there
#
# Only runs with --k_fold are ranked: a hold-out run is scored on fewer people. About a minute a
# run on a GPU.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
needs_python
runs=("$@")
[ ${#runs[@]} -gt 0 ] || runs=("${RUNS:-runs}"/*/)
out=${OUT:-output} best=${BEST:-3}
[[ $best =~ ^[1-9][0-9]*$ ]] || fail "BEST is $best; give a number of runs"

best=$($python - "$best" "${runs[@]}" <<'PYTHON'
import json, pathlib, sys

ranked, data = [], set()
for folder in map(pathlib.Path, sys.argv[2:]):
    if all((folder / file).exists() for file in ("config.json", "metrics.json", "oof.csv")):
        config = json.loads((folder / "config.json").read_bytes())
        result = json.loads((folder / "metrics.json").read_bytes())
        k_fold = 0 if "oof_of" in config else config["options"]["k_fold"]
        if 0 < k_fold <= len(result.get("folds", ())):
            ranked.append((result["macro_f1"], str(folder)))
            data.add(config["data"]["fingerprint"])
if len(data) > 1:
    print("ensemble.sh: error: these runs were trained on different data; name those of one data set", file=sys.stderr)
    sys.exit(2)
for score, folder in sorted(ranked, reverse=True)[: int(sys.argv[1])]:
    print(folder)
    print(f"{score:.4f} {folder}", file=sys.stderr)
PYTHON
)
[ -n "$best" ] || fail "no finished run with --k_fold among ${runs[*]}"
runs=()
while read -r run; do runs+=("$run"); done <<< "$best"

$python inference.py --model_dir "${runs[@]}" --data_dir "${EVAL:-data/eval}" \
    --output_dir "$out" --tta flip --save_probs
$python inference.py --model_dir "${runs[@]}" --oof "$out/ensemble" --tta flip \
    ${DATA:+--train_dir "$DATA"}
