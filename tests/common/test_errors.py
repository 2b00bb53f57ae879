"""What a thread that fails says, in a process of its own."""

import subprocess
import sys

import pytest

from common.files import HOME


@pytest.mark.parametrize(("error", "lines"), [("OSError(28)", 0), ("ValueError(28)", 3)])
def test_a_thread_tells_of_what_the_main_thread_does_not(error, lines):
    code = f"""
import threading
import common.errors
def fail(): raise {error}
thread = threading.Thread(target=fail)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stderr.splitlines()) >= lines
    assert lines or done.stderr == ""
