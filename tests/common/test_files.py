"""Files that a crash leaves whole, locks between processes."""

import errno
import json
import os
import signal
import stat
import subprocess

import pandas as pd
import pytest
from helpers import python

from common import errors, files


def wait_for_line(process):
    """Returns once the process has printed a line."""
    return process.stdout.readline().strip()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)


def test_atomic_writes_and_makes_the_folder(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    files.write_text(path, "häuser\n")
    assert path.read_text(encoding="utf-8") == "häuser\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), files.atomic(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise error
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "old"


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(ZeroDivisionError), files.atomic(tmp_path / "run") as begun:
        files.write_text(begun / "a.txt", "a")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    killed = python(
        "import os, signal, sys; from common.files import atomic, write_text\n"
        f"with atomic({str(tmp_path / 'run')!r}) as begun:\n"
        "    write_text(begun / 'b.txt', 'b')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed.communicate(timeout=60)
    assert [path.name for path in tmp_path.iterdir()] == [f".run.{killed.pid}-{files.HOST}.tmp"]
    with files.atomic(tmp_path / "run") as begun:
        files.write_text(begun / "a.txt", "a")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [
        "run",
        "run/a.txt",
    ]


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    path, gone = tmp_path / "a[1].txt", python("")
    gone.communicate(timeout=60)
    mine, theirs = [f".a[1].txt.{pid}-{files.HOST}.tmp" for pid in (gone.pid, os.getppid())]
    other, old = (f".a[1].txt.{gone.pid}-{host}.tmp" for host in ("0000002a", "0000002b"))
    for name in (mine, theirs, other, old, f".b.txt.{gone.pid}-{files.HOST}.tmp"):
        (tmp_path / name).write_text("half")
    os.utime(tmp_path / old, (0, 0))
    files.write_text(path, "whole")
    left = {name.name for name in tmp_path.iterdir()}  # those of who may write yet, or other files
    assert left == {path.name, theirs, other, f".b.txt.{gone.pid}-{files.HOST}.tmp"}


def test_a_name_may_have_255_bytes(tmp_path):
    names = ["ä" * 127 + "x", "ä" * 127 + "y"]
    for name in names:
        files.write_text(tmp_path / name, name)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {n: n for n in names}


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.txt", []
    monkeypatch.setattr(files.os, "fsync", lambda fd: seen.append((os.fstat(fd), path.exists())))
    files.write_text(path, "new")
    (file, before), (folder, after) = seen
    assert (file.st_ino, before) == (path.stat().st_ino, False) and file.st_size == 3
    assert (folder.st_ino, after) == (tmp_path.stat().st_ino, True)
    files.write_text(path, "newer", sync=False)
    assert len(seen) == 2


def test_a_disk_may_lack_the_sync_of_folders_but_not_locks(tmp_path, monkeypatch):
    def sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    def lock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.os, "fsync", sync)
    with files.atomic(tmp_path / "run") as begun:
        files.write_text(begun / "a.txt", "a")
    assert (tmp_path / "run/a.txt").read_text() == "a"
    monkeypatch.setattr(files.fcntl, "flock", lock)
    with (
        pytest.raises(OSError, match="No locks") as caught,
        files.locked(tmp_path / "a.lock", wait=True),
    ):
        pass
    assert caught.value.filename == str(tmp_path / "a.lock")


def test_places_that_cannot_be_written_are_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, kind in (
        ("folder", "folder"),
        ("new/er", "folder"),
        ("file", "file"),
        ("n/a", "file"),
    ):
        files.check_writable("--out", tmp_path / path, kind)
    for path, kind, words in (
        ("file", "folder", "is not a folder"),
        ("file/below", "folder", "Not a directory"),
        ("folder", "file", "is not a file"),
        ("pipe", "file", "is not a file"),
        ("file/a.html", "file", "Not a directory"),
        ("x" * 300, "folder", "File name too long"),
        ("/proc/x", "folder", r"cannot be written \("),
        ("/proc/x.html", "file", r"cannot be written \("),
    ):
        with pytest.raises(errors.UserError, match=f"^--out .*{words}") as caught:
            files.check_writable("--out", tmp_path / path, kind)
        assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "pipe"]


def test_what_is_no_regular_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        for read in (files.read_bytes, files.read_json, lambda path: files.read_rows(path, "a")):
            with pytest.raises(errors.UserError, match="not a regular file"):
                read(path)


def cached_text(path, text, made):
    def make(temporary):
        made.append(text)
        temporary.write_text(text)
        return {"text": text, "broken": {3: "a", 20: "b"}}

    return files.cached(path, make)


DAMAGE = {
    "flipped": lambda file, note: file.write_text("rIght"),
    "truncated": lambda file, note: os.truncate(file, 2),
    "empty": lambda file, note: file.write_text(""),
    "gone": lambda file, note: file.unlink(),
    "no note": lambda file, note: note.unlink(),
    "half a note": lambda file, note: os.truncate(note, 20),
    "an edited note": lambda file, note: note.write_text(note.read_text().replace('"a"', '"c"')),
    "a foreign note": lambda file, note: note.write_text("[1]"),
    "a deep note": lambda file, note: note.write_text("[" * 10**5),
    "an old note": lambda file, note: note.write_text('{"text": "right"}'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_the_cache_is_made_again(tmp_path, damage, capsys):
    path, made = tmp_path / "cache/a.bin", []
    note = {"text": "right", "broken": {"3": "a", "20": "b"}}
    for _ in range(2):
        assert cached_text(path, "right", made) == note
    assert made == ["right"] and capsys.readouterr().out == ""
    (path.parent / ".a.bin.7.tmp").write_text("of a process that was killed")
    DAMAGE[damage](path, path.with_suffix(".json"))
    os.utime(path, ns=(1, 1)) if path.exists() else None  # a clock may be slower than this test
    assert cached_text(path, "right", made) == note
    assert path.read_text() == "right" and len(made) == 2
    assert capsys.readouterr().out.count(f"{path} is damaged") == (damage != "gone")
    assert {p.name for p in path.parent.iterdir()} == {"a.bin", "a.json", "a.lock"}


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = """
import sys
from common import errors, files, processes
with files.atomic(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("written", flush=True)
    sys.stdin.read()
"""
    process = python(code, path)
    assert wait_for_line(process) == "written"
    kill(process)
    assert path.read_text() == "old"
    files.write_text(path, "new")
    assert path.read_text() == "new"


def test_tables_and_json_come_back(tmp_path):
    value = {"lr": 1e-3, "size": [128, 96], "name": "né", "path": None}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    frame = pd.DataFrame({"id": ["001", "002"], "p": [0.25, 1.0]})
    files.write_csv(tmp_path / "a.csv", frame)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a.csv", dtype={"id": str}), frame)


@pytest.mark.parametrize("content", [b'{"a": 1', b"", b"\xff\xfe{}", b"[" * 10**5, b"9" * 5000])
def test_broken_json_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match=r"config\.json is not valid JSON") as caught:
        files.read_json(path)
    assert "\n" not in str(caught.value)


def test_missing_json_is_named(tmp_path):
    with pytest.raises(errors.UserError, match=r"config\.json does not exist"):
        files.read_json(tmp_path / "config.json")


HOLD = """
import sys
from common import files
with files.locked(sys.argv[1], wait=False) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_dies(tmp_path):
    path = tmp_path / "new" / ".lock"
    first = python(HOLD, path)
    assert wait_for_line(first) == "True"
    with files.locked(path, wait=False) as held:
        assert held is False
    kill(first)
    with files.locked(path, wait=False) as held:
        assert held is True


def test_a_waiting_process_gets_the_lock_once_it_is_free(tmp_path):
    path, log = tmp_path / ".lock", tmp_path / "log"
    code = """
import sys
from common import files
print("asking", flush=True)
with files.locked(sys.argv[1], wait=True) as held, open(sys.argv[2], "a") as log:
    log.write(f"second {held}")
"""
    with files.locked(path, wait=True) as held:
        second = python(code, path, log)
        assert wait_for_line(second) == "asking"
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=0.5)
        log.write_text(f"first {held}, ")
    second.communicate(timeout=60)
    assert log.read_text() == "first True, second True"
