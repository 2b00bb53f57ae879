"""Errors in one line, with their exit code; what a thread that fails says."""

import signal
import subprocess
import sys

import pytest
from helpers import outcome

from common.files import HOME

RUN = """
import errno, sys
from common import errors, files, processes
sys.argv[0] = "/somewhere/train.py"
def main():
    {body}
errors.run_command(main)
"""


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ('raise errors.UserError("a.csv line 3: no age")', "error: a.csv line 3: no age"),
        ('open("/dev/full", "w").write("x" * 10**6)', "error: cannot read or write: No"),
        (
            'raise OSError(errno.EDQUOT, "Disk quota exceeded", "runs/a.pt")',
            "error: cannot read or write runs/a.pt: Disk quota exceeded",
        ),
        (
            'raise PermissionError(errno.EACCES, "Permission denied", "runs")',
            "error: cannot read or write runs: Permission denied",
        ),
        ('open("x" * 300, "w")', f"error: cannot read or write {'x' * 300}: File name too long"),
        (
            'raise OSError(errno.EIO, "Input/output error")',
            "error: cannot read or write: Input/out",
        ),
        ("bytearray(1 << 60)", "error: not enough memory"),
        ("import torch; torch.empty(1 << 60, dtype=torch.uint8)", "error: not enough memory"),
        ('raise RuntimeError("CUDA error: out of memory")', "error: not enough memory"),
        ('raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when")', "error: not enough memory"),
        ('raise BrokenPipeError(32, "Broken pipe")', "error: cannot read or write: Broken pipe"),
    ],
)
def test_run_ends_in_one_line_and_code_2(body, line):
    code, out, err = outcome(RUN.format(body=body))
    assert code == 2 and out == ""
    assert err.startswith(f"train.py: {line}") and err.count("\n") == 1


def test_an_error_may_have_a_code_of_its_own():
    body = 'raise type("Diverged", (errors.UserError,), {"exit_code": 3})("loss is NaN")'
    assert outcome(RUN.format(body=body)) == (3, "", "train.py: error: loss is NaN\n")


def test_output_that_nobody_reads_or_that_is_full_is_one_line():
    for target, words in (("| head -c 1", "Broken pipe"), ("> /dev/full", "No space left")):
        code = RUN.format(body='print("x\\n" * 10**6)')
        shell = f"set -o pipefail; {sys.executable} -c '{code}' {target}"
        done = subprocess.run(
            ["bash", "-c", shell.replace('"/somewhere/train.py"', '"train.py"')],
            cwd=HOME,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_a_name_that_is_not_utf_8_can_be_printed():
    assert outcome(RUN.format(body='print("a\\udcff")')) == (0, "a\\udcff\n", "")


def test_run_ends_an_interrupt_without_a_traceback():
    code, _, err = outcome(RUN.format(body="raise KeyboardInterrupt"))
    assert (code, err) == (130, "train.py: interrupted\n")


def test_run_hides_no_other_error():
    code, _, err = outcome(RUN.format(body='raise OSError(errno.EBADF, "Bad file")'))
    assert code == 1 and "Traceback" in err and "Bad file" in err
    code, out, err = outcome(RUN.format(body='print("fine")'))
    assert (code, out, err) == (0, "fine\n", "")


INTERRUPTED = {
    "before main": "import common.errors, os; os.kill(os.getpid(), 2)",
    "in main": "raise KeyboardInterrupt",
    "an import that then fails otherwise": """
try:
    os.kill(os.getpid(), 2)
except KeyboardInterrupt:
    raise ImportError("cannot load module more than once per process")
""",
}


@pytest.mark.parametrize("when", INTERRUPTED)
def test_an_interrupt_at_any_moment_is_one_line(when):
    code = INTERRUPTED[when]
    if when != "before main":
        inner = "\n".join(f"    {line}" for line in code.splitlines())
        code = f"import os\nfrom common.errors import run_command\ndef main():\n{inner}\n"
        code += "run_command(main)"
    ours = "import signal; signal.signal(2, signal.default_int_handler)\n"  # a shell may ignore it
    code, _, err = outcome(ours + code)
    assert err.endswith(": interrupted\n") and err.count("\n") == 1
    assert code in (130, -signal.SIGINT)  # which a shell calls 130


@pytest.mark.parametrize(("rank", "expected"), [("", -signal.SIGABRT), ("RANK", 0)])
def test_under_torchrun_what_ends_python_cannot_fail_a_command_that_is_done(rank, expected):
    body = "import atexit, os; atexit.register(os.abort); print(7)"
    body += f"; os.environ['{rank}'] = '1'" if rank else ""
    code, out, err = outcome(RUN.format(body=body))
    assert (code, out, err) == (expected, "7\n", "")


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
