"""A case: a command in a prepared folder, what must come out, and what must hold whatever it is."""

import ctypes
import fnmatch
import json
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open

from harness import engine, folder
from harness.engine import Expected

# What a command may change of the files that it finds; all else keeps its bytes.
MAY_CHANGE = {
    "train": ("cache/*", "*/mattes/*/rejected.csv", "*/photos.json"),
    "inference": ("cache/*", "output/*", "*/rejected.csv", "*/photos.json"),
    "preprocess": ("*/mattes/*",),
    "report": ("report*",),
    "tune": ("cache/*", "tune.db*"),
    "demo": (),
}
# What --resume may write in the run that it goes on with.
RESUMED = ("last.pt", "log.csv", "metrics.json", "oof.csv", "best.*")


@dataclass(frozen=True)
class Case:
    """One line of the table.

    name: says what is wrong; kind: of the table; command, argv: what runs, argv behind
    folder.BASE of the command unless `bare`; prepare(folder): spoils the copy of the template;
    expected: how the command must end; before(): called in its process first, for faults;
    then(box, done): more that must hold, complaints in words; story(box): instead of one command,
    a story of several that returns complaints; changes: patterns of files that it may change
    besides.
    """

    name: str
    kind: str
    command: str = ""
    argv: str = ""
    prepare: Callable | None = None
    expected: Expected | None = None
    bare: bool = False
    before: Callable | None = None
    then: Callable | None = None
    story: Callable | None = None
    changes: tuple = ()


@dataclass
class Result:
    """How a case came out: complaints is empty if it passed; skipped says why it did not run."""

    name: str
    kind: str
    complaints: list
    said: str = ""
    seconds: float = 0.0
    memory: float = 0.0
    skipped: str = ""


class Skip(Exception):
    """A case cannot be told here; the message says why."""


def may_change(running):
    resumed = [f"runs/half/*{name}" for name in RESUMED] if "--resume" in running.argv else []
    return (*MAY_CHANGE[running.command], *resumed)


def words_of(command, argv, bare=False):
    """The whole command line of a command, with what each case of it gets."""
    if bare:
        return argv
    base = folder.BASE[command]
    if command == "tune":
        argv, _, more = f" {argv} ".partition(" -- ")
        return f"{base} {argv} -- {folder.TRAIN} {more}"
    if command == "train" and "--resume" in argv:
        return argv
    if "--oof" in argv or "--images" in argv:
        base = base.replace("--data_dir data/eval", "")
    return f"{base} {argv}"


def run_case(case, template, place):
    """The Result of a case, run in a copy of the template at `place`, which is removed after."""
    place = Path(place)
    shutil.rmtree(place, ignore_errors=True)
    home, start, box, said = place / "case", time.monotonic(), None, ""
    try:
        folder.copy(template, home)
        if case.prepare:
            case.prepare(home)
        before = snapshot(home)
        box = engine.Box(home, place / "logs")
        if case.story:
            complaints = case.story(box)
        else:
            words = words_of(case.command, case.argv, case.bare)
            done = box.run(case.command, words, case.before)
            complaints = case.expected.complaints(done)
            if case.then and not complaints:
                complaints += case.then(box, done)
        said = "\n    ".join(str(running.done) for running in box.started)
        patterns = case.changes + sum((may_change(r) for r in box.started), ())
        complaints += lost(home, before, patterns) + halves(home, before)
        if case.expected and done.code == 2:
            complaints += new_runs(home, before)
        complaints += left_running()
        memory = max((r.done.memory for r in box.started if r.done), default=0.0)
        return Result(case.name, case.kind, complaints, said, time.monotonic() - start, memory)
    except Skip as reason:
        return Result(case.name, case.kind, [], skipped=str(reason))
    except Exception as error:  # of the case itself
        complaint = f"the case does not run: {type(error).__name__}: {error}"
        return Result(case.name, case.kind, [complaint], said, time.monotonic() - start)
    finally:
        if box:
            box.close()
        shutil.rmtree(os.fsencode(place), ignore_errors=True)


def without_rights():
    """Drops the right of root to read and write what its mode forbids (capset(2))."""
    libc, bits = ctypes.CDLL(None), (ctypes.c_uint32 * 6)()
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    libc.capget(header, bits)
    bits[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    libc.capset(header, bits)


# ---- what a case may ask for besides: then(box, done) returns complaints in words


def same_answers(name):
    """output.csv and output_probs.csv are those of the run before it was spoilt."""

    def then(box, done):
        if done.code:
            return []
        names = ("output.csv", "output_probs.csv")
        wanted = [box.path("answers", name, table).read_bytes() for table in names]
        found = [box.path("output", table) for table in names]
        same = [path.read_bytes() for path in found if path.exists()] == wanted
        return [] if same else ["exit 0 with other answers than before"]

    return then


def nothing_ran(box, done):
    """No stranger's code has run: it would have left this file."""
    return ["a stranger's code has run"] if list(box.folder.parent.rglob("pwned*")) else []


def holds(pattern):
    """A file is there afterwards."""
    return lambda box, done: [] if list(box.folder.glob(pattern)) else [f"{pattern} is not there"]


# ---- what must hold in every case


def files_below(home):
    """{path below home, as bytes: os.stat_result without following links} of all but folders."""
    found, home = {}, os.fsencode(home)
    for place, _, names in os.walk(home):
        for name in names:
            path = b"%b/%b" % (place, name)
            found[path[len(home) + 1 :]] = os.lstat(path)
    return found


def signature(status):
    return status.st_ino, status.st_size, status.st_mtime_ns, stat.S_IFMT(status.st_mode)


CONTENTS = {}  # of small files by signature: most are links to those of the template


def snapshot(home):
    """{path: (signature, content)} of all files; the content of large ones is not read."""
    found = {}
    for path, status in files_below(home).items():
        key = signature(status)
        small = stat.S_ISREG(status.st_mode) and status.st_size < 200_000
        if small and key not in CONTENTS:
            CONTENTS[key] = (home / os.fsdecode(path)).read_bytes()
        found[path] = key, CONTENTS.get(key)
    return found


def lost(home, before, patterns):
    """Files of before that are gone or have other bytes, and may not."""
    now, found = files_below(home), []
    for path, (old, content) in before.items():
        name = Path(os.fsdecode(path))
        if any(fnmatch.fnmatch(str(name), pattern) for pattern in patterns):
            continue
        if path not in now:
            found.append(f"lost: {name}")
        elif signature(now[path]) != old and (home / name).read_bytes() != content:
            found.append(f"changed: {name}")
    return found[:3]


def changed_files(home, before):
    """Regular files that are new or not as before."""
    for path, status in files_below(home).items():
        if stat.S_ISREG(status.st_mode) and (
            path not in before or before[path][0] != signature(status)
        ):
            yield Path(os.fsdecode(path))


def halves(home, before):
    """What the case has written that is not whole, or was only for the time of writing."""
    found = []
    for path in changed_files(home, before):
        if path.suffix == ".tmp" or path.name.endswith("-journal"):
            found.append(f"left behind: {path}")
        elif fault := broken(home / path):
            found.append(f"not whole: {path}: {fault}")
    return found[:3]


def broken(path):
    """Why a file that a command wrote is not whole; None if it is."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".csv":
            return broken_table(path)
        elif path.suffix == ".png" and cv2.imread(str(path)) is None:
            return "is no image"
        elif path.suffix == ".npy":
            np.load(path, mmap_mode="r")
        elif path.suffix == ".safetensors":
            safe_open(path, "np")
        elif path.suffix == ".html" and "</html>" not in path.read_text(encoding="utf-8"):
            return "does not end"
    except (ValueError, OSError, SafetensorError) as error:
        return str(error)
    return None


def broken_table(path):
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    if not text.endswith("\n"):
        return "its last line does not end"
    if "nan" in text.lower() and path.name in ("oof.csv", "output.csv", "output_probs.csv"):
        return "holds NaN"
    widths = {line.count(",") for line in text.split("\n")[:-1]} if '"' not in text else {0}
    return None if len(widths) == 1 else "rows of unequal length"


def new_runs(home, before):
    """Run folders that a command with wrong input has made."""
    known = {path.split(b"/")[1] for path in before if path.startswith(b"runs/")}
    found = {path.name for path in (home / "runs").iterdir() if path.is_dir()}
    return [f"wrong input, but made runs/{name}" for name in found - set(map(os.fsdecode, known))]


def left_running():
    """Processes that the commands have left, two seconds after; they are ended."""
    end = time.monotonic() + 2
    while engine.children() and time.monotonic() < end:
        os.waitpid(-1, os.WNOHANG)
        time.sleep(0.02)
    found = engine.children()
    for pid in found:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return [f"left {len(found)} processes running"] if found else []
