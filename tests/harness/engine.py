"""Runs commands in forked processes, and checks what every case must hold.

A command is forked from a process that has imported the packages, so that it starts at once. It
runs as `python <command>.py` does: common.errors.run_command(main), in the case's own folder.
"""

import ctypes
import importlib
import os
import re
import shlex
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import run_command
from common.files import HOME
from common.imports import quick_imports

COMMANDS = ("train", "inference", "preprocess", "report", "tune", "demo")
SECONDS = 60  # a command that takes longer hangs: the slowest takes 5 alone on a core
STOPS = (signal.SIGINT, signal.SIGTERM)
DEATH_SIGNAL, SUBREAPER = 1, 36  # of prctl(2)
NEW_MOUNTS, PRIVATE = 0x20000, 1 << 18 | 1 << 14  # of unshare(2) and mount(2)


def import_packages():
    """Imports all that commands use, with one thread, and adopts what they leave running."""
    os.environ["OMP_NUM_THREADS"] = "1"  # a pool of threads does not survive a fork
    os.environ["HF_HUB_OFFLINE"] = "1"
    for variable in ("SM_CHANNEL_TRAIN", "SM_CHANNEL_EVAL", "SM_MODEL_DIR", "SM_CHANNEL_MODEL",
                     "SM_OUTPUT_DATA_DIR", "RANK", "WORLD_SIZE"):  # fmt: skip
        os.environ.pop(variable, None)
    with quick_imports(compiles=False):
        import cv2
        import torch
        from torch.utils import tensorboard  # noqa: F401  takes half a second

        for name in (*COMMANDS, *insides()):
            importlib.import_module(name)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def insides():
    """Names of the modules in the project's folders, which commands import late."""
    for folder in HOME.glob("*/__init__.py"):
        yield from (f"{folder.parent.name}.{p.stem}" for p in folder.parent.glob("[!_]*.py"))


@dataclass
class Done:
    """How a command ended. code: of exit, negative for a signal, None if it had to be killed;
    memory: its largest, in MB."""

    command: str
    argv: list
    code: int | None
    out: str
    err: str
    seconds: float
    memory: float

    def __str__(self):
        words = shlex.join([f"{self.command}.py", *self.argv])
        return f"{words}\n    exit {self.code}, stdout: {self.out[-300:]!r}, stderr: {self.err!r}"


@dataclass
class Running:
    """A command that has been started."""

    command: str
    argv: list
    pid: int
    files: tuple
    start: float = field(default_factory=time.monotonic)
    done: Done | None = None

    def poll(self):
        """Done if it has ended, else None."""
        if self.done is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._ended(os.waitstatus_to_exitcode(status), used)
        return self.done

    def wait(self, seconds=SECONDS):
        """Done; after so many seconds it is killed, and its exit code is None."""
        while not self.poll():
            if time.monotonic() - self.start > seconds:
                os.kill(self.pid, signal.SIGKILL)
                _, _, used = os.wait4(self.pid, 0)
                self._ended(None, used)
            time.sleep(0.002)
        return self.done

    def signal(self, number):
        if not self.poll():
            os.kill(self.pid, number)

    def _ended(self, code, used):
        seconds = time.monotonic() - self.start
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in self.files)
        memory = used.ru_maxrss / 1024
        self.done = Done(self.command, self.argv, code, out, err, seconds, memory)


class Box:
    """The folder of one case, and the commands that run in it."""

    def __init__(self, folder, logs):
        self.folder, self.logs = Path(folder), Path(logs)
        self.started = []

    def start(self, command, argv, before=None):
        """Starts a command; before(): called in its process first, for faults."""
        argv = shlex.split(argv) if isinstance(argv, str) else list(map(str, argv))
        self.logs.mkdir(parents=True, exist_ok=True)
        number = len(self.started)
        files = tuple(self.logs / f"{number}.{name}" for name in ("out", "err"))
        for path in files:
            path.touch()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # until the command has begun
        pid = os.fork()
        if pid == 0:
            child(command, argv, self.folder, files, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        self.started.append(Running(command, argv, pid, files))
        return self.started[-1]

    def run(self, command, argv, before=None, seconds=SECONDS):
        return self.start(command, argv, before).wait(seconds)

    def path(self, *parts):
        return self.folder.joinpath(*parts)

    def close(self):
        """Ends what still runs."""
        for running in self.started:
            running.signal(signal.SIGKILL)
            running.wait()


def child(command, argv, folder, files, before):
    """The life of a forked command; never returns."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, path in enumerate(files, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
        sys.argv = [f"{command}.py", *argv]
        sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, encoding="utf-8", buffering=1)  # noqa: SIM115
        if before:
            before()
        main = importlib.import_module(command).main
        run_command(lambda: (signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS), main()))
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                code = code or 120  # as Python does
        os._exit(code)


@dataclass(frozen=True)
class Expected:
    """How a command must end: the exit code, and what its output must hold (regular expressions,
    any case): stderr with code 2 or 3, stdout with 0. never: what no output may hold; or_works: it
    may also end well."""

    code: int
    words: tuple = ()
    never: str = ""
    or_works: bool = False

    def complaints(self, done):
        """What is wrong with how a command ended, in words."""
        if self.or_works and done.code == 0:
            return works().complaints(done)
        found, text = [], done.err if self.code else done.out
        if done.code is None:
            found.append("hangs")
        elif done.code != self.code:
            found.append(f"exit code {done.code}, not {self.code}")
        if "Traceback" in done.err + done.out:
            found.append("traceback")
        # What a C library says of a broken PNG is not the command's.
        lines = [line for line in done.err.splitlines() if not line.startswith("libpng ")]
        if self.code in (2, 3) and done.code == self.code:
            if len(lines) != 1:
                found.append(f"{len(lines)} lines on stderr")
            if not "".join(lines[-1:]).startswith(f"{done.command}.py: error: "):
                found.append("its line does not start with the command and 'error:'")
        if self.code == 0 and lines:
            found.append("something on stderr")
        missing = [w for w in self.words if not re.search(w, text, re.IGNORECASE | re.DOTALL)]
        if self.never and re.search(self.never, done.err + done.out):
            found.append(f"says {self.never!r}")
        return found + [f"does not say {word!r}" for word in missing if done.code == self.code]


def works(*words, never=""):
    return Expected(0, words, never)


def error(*words, never=""):
    """Exit code 2 and one line that says all of this: what is wrong, where, what to do."""
    return Expected(2, words, never)


def error_or_works(*words):
    """Either will do, but no traceback, and an error must say this."""
    return Expected(2, words, or_works=True)


def diverged(*words):
    return Expected(3, words)


def children():
    """Process ids of this process's children, orphans of its commands among them."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def own_mounts():
    """Whether this process has mounts of its own now, which end with it; root may have them."""
    libc = ctypes.CDLL(None)
    return not libc.unshare(NEW_MOUNTS) and not libc.mount(None, b"/", None, PRIVATE, None)


def adopt():
    """Makes this process the parent of whatever its commands leave behind."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
