#!/usr/bin/env bash
# The whole way from photos to a submission, on a drawn competition: about two minutes on 2 cores
# after the set-up.
#
# DATA, RUNS and OUT name other folders than data/demo, runs and output/demo.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
data=${DATA:-data/demo} runs=${RUNS:-runs} out=${OUT:-output/demo}

bash scripts/setup.sh
echo "Drawing people, training three models for about a minute, then submission and report ..."

# A small competition whose truth is known: 40 people to learn from, 15 to predict.
$python demo.py --out "$data" --people 40 --eval_people 15

# Three models, one an attribute, on photos whose background is removed; the mattes are made
# first. The run goes to the first free folder of runs/demo, runs/demo2, ...
$python train.py --data_dir "$data/train" --model_dir "$runs" --name demo \
    --split_heads --bg rembg --resize 96 72 --epochs 6 --batch_size 32
run=$(ls -dt "$runs"/demo* | head -n 1)

# The submission. The run knows how its photos were prepared.
$python inference.py --model_dir "$run" --data_dir "$data/eval" --output_dir "$out"
$python scripts/score.py "$out/output.csv" "$data/truth.csv"

# One page about the data and the run: open it in a browser.
$python report.py --data_dir "$data/train" --model_dir "$run" --out "$out/report.html"

echo "run: $run   submission: $out/output.csv   page: $out/report.html   photos: $data"
