#!/usr/bin/env bash
# The two hypotheses: layout x view x sampler under the same folds and seeds, then the report.
#
#   bash scripts/ablation.sh
#   DATA=data/demo/train SEEDS="1 2 3" FOLDS=3 EPOCHS=4 SIZE="96 72" bash scripts/ablation.sh
#   LAYOUTS="joint split" VIEWS="none rembg_grabcut" SAMPLERS=off bash scripts/ablation.sh
#
# All 30 conditions on the competition's data take about a night on one large GPU and a seed; on 2
# cores choose fewer (LAYOUTS, VIEWS, SAMPLERS), smaller and shorter. Stop it at any time; started
# again with the same environment it goes on. The other variables are those of scripts/lib.sh.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

for layout in ${LAYOUTS:-joint split shared}; do
    case $layout in
        joint) flags=() ;;
        split) flags=(--split_heads) ;;
        shared) flags=(--shared_backbone) ;;
        *) echo "ablation.sh: error: LAYOUTS has $layout; use joint, split, shared" >&2; exit 2 ;;
    esac
    for view in ${VIEWS:-none grabcut rembg rembg_grabcut none+rembg}; do
        for sampler in ${SAMPLERS:-off on}; do
            power=0
            [ "$sampler" = on ] && power=1
            seeds "$layout-$view-sampler_$sampler" ${flags[@]+"${flags[@]}"} \
                --bg "$view" --weighted_sampler $power
        done
    done
done

report "${PAGE:-ablation.html}"
