#!/usr/bin/env bash
# Three models, each with what its attribute may want, against three models alike.
#
#   bash scripts/per_attribute.sh
#
# Mask and gender reach their level soon; age decides, so it gets the changes one by one. Four runs
# of three models a seed; resumable. Variables: scripts/lib.sh.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

# The baseline: three models alike.
seeds attribute-alike --split_heads

# Age sees more pixels, and trains longer, by another schedule.
seeds attribute-age_large --split_heads --resize ${SIZE} "age=${AGE_SIZE:-192,144}"
seeds attribute-age_long --split_heads --epochs "$EPOCHS" "age=$((EPOCHS * 3 / 2))"
seeds attribute-age_step --split_heads --scheduler cosine age=step --lr_decay_step 20 age=3

# Mask and gender see the person only, age the photo; each its own backbone.
seeds attribute-views --split_heads --bg none mask=rembg_grabcut gender=rembg_grabcut
seeds attribute-backbones --split_heads --model tf_efficientnet_lite0 "age=${AGE_MODEL:-resnet18}"

report "${PAGE:-per_attribute.html}"
