#!/usr/bin/env bash
# One condition, several backbones: baseline, model by model.
#
#   bash scripts/backbones.sh
#   MODELS="resnet18 resnet50" DATA=data/train bash scripts/backbones.sh
#
# The first model is the baseline of the report. Weights come from weights/<model>.safetensors or
# from timm's hub. About as long as one run a model; resumable. Variables: scripts/lib.sh.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

for model in ${MODELS:-tf_efficientnet_lite0 resnet18 mobilenetv3_large_100 efficientnet_b3 convnext_tiny}; do
    seeds "backbone-$model" --model "$model"
done

report "${PAGE:-backbones.html}"
