#!/usr/bin/env bash
# Makes .venv with the packages of requirements.txt, and fetches two small weight files. Quick when
# all is there. PYTHON names another interpreter than python3.
set -euo pipefail
source "$(dirname "$0")/lib.sh"
system=${PYTHON:-python3}
[ -n "${PYTHON:-}" ] || ! $python -m pip -V >/dev/null 2>&1 || system=$python

# The stamp tells which requirements and which Python .venv was made with.
stamp=.venv/requirements.sha256
wanted=$("$system" -c 'import hashlib, sys; print(hashlib.sha256(
    open("requirements.txt", "rb").read() + sys.version.encode()).hexdigest())')

if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    "$system" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' ||
        fail "needs Python 3.11 or 3.12; name one: PYTHON=python3.12 bash $0"
    echo "Installing the packages of requirements.txt into .venv; this takes about two minutes ..."
    [ "$system" = $python ] || "$system" -m venv --clear .venv
    $python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    echo "Importing rembg for the first time, which compiles parts of it; about a minute ..."
    $python -c 'import rembg'
    echo "$wanted" > "$stamp"
fi
$python scripts/fetch_weights.py
