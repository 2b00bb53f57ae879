#!/usr/bin/env bash
# Sets up .venv with the requirements, and the two small weight files. Quick when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
stamp=.venv/requirements.sha256
wanted=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(
    open("requirements.txt", "rb").read() + sys.version.encode()).hexdigest())')

if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || {
        echo "setup.sh: error: needs Python 3.11 or 3.12 (PYTHON=python3.12 bash $0)" >&2
        exit 2
    }
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    # The first import compiles parts of rembg for a minute; without a message it would seem to hang.
    .venv/bin/python -c 'import rembg'
    echo "$wanted" > "$stamp"
fi
.venv/bin/python scripts/fetch_weights.py
