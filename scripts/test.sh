#!/usr/bin/env bash
# Set-up, then lint, format and tests. Words after it go to pytest: bash scripts/test.sh -k loss
set -euo pipefail
cd "$(dirname "$0")/.."

bash scripts/setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python -m pytest --numprocesses auto --dist loadfile "$@"
