#!/usr/bin/env bash
# The two questions of the project, answered by many runs: does it help to remove the background,
# and are three models, one an attribute, better than one with 18 classes? Every layout is trained
# on every view, without and with the weighted sampler, on the same folds and seeds.
#
#   bash scripts/ablation.sh
#   DATA=data/demo/train SEEDS="1 2 3" FOLDS=3 EPOCHS=4 SIZE="96 72" bash scripts/ablation.sh
#   LAYOUTS="joint split" VIEWS="none rembg_grabcut" SAMPLERS=off bash scripts/ablation.sh
#
# With the competition's data, all 30 conditions take about a night for each seed on one large GPU.
# On 2 cores, choose fewer conditions, smaller photos and fewer epochs. Other variables: lib.sh.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
batch

for layout in ${LAYOUTS:-joint split shared}; do
    case $layout in
        joint) flags=() ;;
        split) flags=(--split_heads) ;;
        shared) flags=(--shared_backbone) ;;
        *) fail "LAYOUTS has $layout; choose from joint, split, shared" ;;
    esac
    for view in ${VIEWS:-none grabcut rembg rembg_grabcut none+rembg}; do
        for sampler in ${SAMPLERS:-off on}; do
            case $sampler in
                off) power=0 ;;
                on) power=1 ;;
                *) fail "SAMPLERS has $sampler; choose from off, on" ;;
            esac
            condition "$layout-$view-sampler_$sampler" ${flags[@]+"${flags[@]}"} \
                --bg "$view" --weighted_sampler $power
        done
    done
done

report "${PAGE:-ablation.html}"
