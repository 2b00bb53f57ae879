#!/usr/bin/env bash
# Bad inputs and faults through the real commands: the table of cases, then a soak, then a fuzz.
#
#   bash scripts/harness.sh                      all of it
#   bash scripts/harness.sh --cases              the cases alone; --only REGEX: those of such names
#   bash scripts/harness.sh --soak               150 commands, stopped at random; --seed N: others
#   bash scripts/harness.sh --fuzz 20000         so many mutated inputs of each kind
#
# tests/harness/table.py says where a case is added: a line in the file of its kind.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

OMP_NUM_THREADS=1 PYTHONPATH=.:tests exec $python -m harness "$@"
