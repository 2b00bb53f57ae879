#!/usr/bin/env bash
# The same run with one backbone after the other. The report compares them with the first.
#
#   bash scripts/backbones.sh
#   MODELS="resnet18 resnet50" DATA=data/train bash scripts/backbones.sh
#
# Weights come from weights/<model>.safetensors, or else timm downloads them. Each model takes
# FOLDS times as long as one train.py, the large ones many times that. Other variables: lib.sh.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
batch

small="tf_efficientnet_lite0 resnet18 mobilenetv3_large_100"
large="efficientnet_b3 convnext_tiny"
for model in ${MODELS:-$small $large}; do
    condition "backbone-$model" --model "$model"
done

report "${PAGE:-backbones.html}"
