"""A hundred cases of tests/harness, each through the real command; scripts/harness.sh runs all."""

import json
import os
import subprocess
import sys

import pytest
from harness import table

from common.files import HOME


@pytest.fixture(scope="module")
def run():
    """run(name): how a case came out, from one process that has imported the packages."""
    words = [sys.executable, "-m", "harness", "--serve"]
    path = os.pathsep.join([str(HOME), str(HOME / "tests")])
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HOME,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )

    def run(name):
        print(name, file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())

    yield run
    process.stdin.close()
    assert process.wait(30) == 0


@pytest.mark.parametrize("name", table.fast(100))
def test_ends_as_it_ought_to(run, name):
    result = run(name)
    assert not result["complaints"], result["said"]
