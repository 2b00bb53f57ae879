"""A hundred cases of tests/harness, each through the real command; scripts/harness.sh runs all."""

import pytest
from harness import serve, table
from launch import warm


@pytest.fixture(scope="module")
def run():
    """run(name): how a case came out, from one process that has imported the packages."""
    ours, theirs = warm().Pipe()
    process = warm().Process(target=serve.serve, args=(theirs,))
    process.start()
    theirs.close()

    def run(name):
        ours.send(name)
        return ours.recv()

    yield run
    ours.close()
    process.join(30)
    assert process.exitcode == 0


@pytest.mark.parametrize("name", table.fast(100))
def test_ends_as_it_ought_to(run, name):
    result = run(name)
    assert not result.complaints, result.said
