#!/usr/bin/env bash
# The best runs to one submission: those with the highest out-of-fold macro F1 are averaged. Then
# the average's own out-of-fold score, in $OUT/ensemble, which report.py takes as one more run.
#
#   bash scripts/ensemble.sh                 the best 3 of runs/
#   BEST=5 EVAL=data/eval OUT=output bash scripts/ensemble.sh runs/exp runs/exp2 ...
#   DATA=data/train bash scripts/ensemble.sh         where the training photos have moved to
#
# Only runs over all people (--k_fold) are ranked, since others are scored on other people. A
# minute or so a run on a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=("$@")
[ ${#runs[@]} -gt 0 ] || runs=(runs/*/)

best=$(.venv/bin/python - "${BEST:-3}" "${runs[@]}" <<'PYTHON'
import json, pathlib, sys

ranked = []
for folder in map(pathlib.Path, sys.argv[2:]):
    if (folder / "metrics.json").exists() and (folder / "oof.csv").exists():
        config = json.loads((folder / "config.json").read_text())
        if config["options"]["k_fold"] and "oof_of" not in config:
            score = json.loads((folder / "metrics.json").read_text())["macro_f1"]
            ranked.append((score, str(folder)))
for score, folder in sorted(ranked, reverse=True)[: int(sys.argv[1])]:
    print(folder)
    print(f"{score:.4f} {folder}", file=sys.stderr)
PYTHON
)
if [ -z "$best" ]; then
    echo "ensemble.sh: error: no finished run with --k_fold among ${runs[*]}" >&2
    exit 2
fi
out=${OUT:-output}
# shellcheck disable=SC2086
.venv/bin/python inference.py --model_dir $best --data_dir "${EVAL:-data/eval}" \
    --output_dir "$out" --tta flip --save_probs
# shellcheck disable=SC2086
.venv/bin/python inference.py --model_dir $best --oof "$out/ensemble" --tta flip \
    ${DATA:+--train_dir "$DATA"}
