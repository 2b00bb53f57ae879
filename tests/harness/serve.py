"""The folder that the harness works in, and one case run there by its name."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from harness import case, engine, folder, table


def work(home, chosen):
    """Runs one case in a worker; home: the folder of the harness."""
    engine.adopt()
    mine = home / f"template{os.getpid()}"  # a link of another worker would touch its files
    if not mine.exists():
        shutil.copytree(home / "template", mine, symlinks=True)
    return case.run_case(chosen, mine, home / f"worker{os.getpid()}")


def run_by_name(home, name):
    return work(home, table.CASES[name])


def make_template(home):
    """Draws and trains what all cases start from, in home/template."""
    (home / "template").mkdir(parents=True)
    folder.make_template(engine.Box(home / "template", home / "logs"))


@contextlib.contextmanager
def own_folder():
    """A folder that is removed after, also that of a harness that was killed."""
    for old in Path(tempfile.gettempdir()).glob("harness-*-*"):
        if not Path("/proc", old.name.split("-")[1]).exists():
            shutil.rmtree(old, ignore_errors=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix=f"harness-{os.getpid()}-") as home:
        yield Path(home)


def serve(place):
    """Runs the cases whose names come through a Connection, for tests/test_harness.py."""
    with own_folder() as home, contextlib.suppress(EOFError):
        make_template(home)
        while name := place.recv():
            place.send(run_by_name(home, name))
