#!/usr/bin/env bash
# The set-up, then lint, format and tests. More flags go to pytest: bash scripts/test.sh -k loss
set -euo pipefail
source "$(dirname "$0")/lib.sh"

bash scripts/setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
$python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder "$@"
