#!/usr/bin/env bash
# Three models with the same options, against three models of which each has its own.
#
#   bash scripts/per_attribute.sh
#
# Mask and gender are learned quickly; age decides the score, so age gets the changes, one at a
# time. Six conditions of three models. AGE_SIZE (192,144) and AGE_MODEL (resnet18) change what
# age gets. Other variables: lib.sh.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
batch

# The baseline: all three the same.
condition attribute-alike --split_heads

# Age sees larger photos; trains for longer; has another learning rate schedule.
condition attribute-age_large --split_heads --resize $SIZE "age=${AGE_SIZE:-192,144}"
condition attribute-age_long --split_heads --epochs "$EPOCHS" "age=$((EPOCHS * 3 / 2))"
condition attribute-age_step --split_heads --scheduler cosine age=step --lr_decay_step 20 age=3

# Mask and gender see the person only, age the whole photo; age has another backbone.
condition attribute-views --split_heads --bg none mask=rembg_grabcut gender=rembg_grabcut
condition attribute-backbones --split_heads \
    --model tf_efficientnet_lite0 "age=${AGE_MODEL:-resnet18}"

report "${PAGE:-per_attribute.html}"
