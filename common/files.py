"""Files: written whole or not at all, locked, and read with one clear line if they are wrong."""

import contextlib
import csv
import fcntl
import glob
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
import zlib
from pathlib import Path

from common.errors import UserError
from common.processes import say

HOME = Path(__file__).resolve().parent.parent  # of the project
WEIGHTS = HOME / "weights"
HOST = f"{zlib.crc32(os.uname().nodename.encode()):08x}"
DAY = 24 * 60 * 60


@contextlib.contextmanager
def atomic(path, sync=True):
    """Yields a temporary path beside `path`, for a file or a folder; renames it to `path` if the
    block ends well. A crash leaves the old file as it was, with `sync` also a power cut: leave it
    out for files of which there are many, which are checked when read and can be made again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if sync:
        for stale in path.parent.glob(f"{glob.escape(hidden(path).name)}.*.tmp"):
            remove_leftover(stale)
    temporary = hidden(path).with_name(f"{hidden(path).name}.{os.getpid()}-{HOST}.tmp")
    try:
        yield temporary
        if sync:
            _sync(temporary)
        temporary.replace(path)
        if sync:
            _sync(path.parent)
    except OSError as error:
        if error.filename in (None, temporary, str(temporary)):  # a full disk names no file
            error.filename = str(path)
        raise
    finally:
        _remove(temporary)


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftover(temporary):
    """Removes a temporary file of atomic(), unless the process that writes it is alive; that of
    another machine, whose processes are not seen here, when it is a day old.
    """
    process, _, host = temporary.name.split(".")[-2].partition("-")
    with contextlib.suppress(OSError, ValueError, OverflowError):  # another's file, or process
        try:
            if host == HOST:
                os.kill(int(process), 0)
            elif time.time() - temporary.stat().st_mtime > DAY:
                _remove(temporary)
        except ProcessLookupError:
            _remove(temporary)


def hidden(path):
    """How the temporary names of atomic(path) begin; .<process>-<machine>.tmp stands behind it."""
    name = os.fsencode(path.name)
    return path.with_name("." + (hashlib.sha1(name).hexdigest() if len(name) > 230 else path.name))


def _sync(path):
    # Not all network disks can sync a folder.
    with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_writable(flag, path, kind="folder"):
    """UserError unless `path`, of this flag, which need not exist, can be written: a "folder", or a
    "file". To be called before any work.
    """
    path = Path(path)
    try:
        if path.exists() and not (path.is_dir() if kind == "folder" else path.is_file()):
            raise UserError(f"{flag} {path}: is not a {kind}; give another")
        folder = path if kind == "folder" else path.parent
        while not folder.exists():
            folder = folder.parent
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = f"cannot be written ({error.strerror})"
        raise UserError(f"{flag} {path}: {reason}; give another {kind}") from None


@contextlib.contextmanager
def locked(path, wait):
    """Holds the lock file `path`; yields False at once if another process has it and not `wait`.

    The kernel lets go of the lock when a process ends, however it ends.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        except OSError as error:  # a disk that has no locks
            error.filename = str(path)
            raise
        else:
            yield True


def cached(path, make, good=lambda note: True):
    """The note of the file `path` in a cache, the dict that make(temporary path) returns, which
    writes the file where that is missing or damaged, or not good(note); other processes wait.

    It is kept as .json with a CRC-32 of the file and of itself.
    """
    path = Path(path)
    if (found := _intact(path)) is not None and good(found):
        return found
    with locked(path.with_suffix(".lock"), wait=True):
        if (found := _intact(path)) is not None and good(found):  # another process has made it
            return found
        if path.exists() and found is None:
            say(f"{path} is damaged, unfinished or of an older version: it is made again")
        for stale in path.parent.glob(f"{hidden(path).name}.*.tmp"):  # of one that was killed
            stale.unlink()
        with atomic(path, sync=False) as temporary:
            found = json.loads(json.dumps(make(temporary)))
            crc = _crc(temporary, found)
        write_json(path.with_suffix(".json"), found | {"crc32": crc}, sync=False)
    return found


def _intact(path):
    """The note of a cached file, without its checksum; None unless both are whole."""
    try:
        note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return note if note.pop("crc32") == _crc(path, note) else None
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError):
        return None


def _crc(path, note):
    crc = zlib.crc32(json.dumps(note, sort_keys=True).encode())
    buffer = memoryview(bytearray(1 << 22))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            crc = zlib.crc32(buffer[:count], crc)
    return crc


def write_text(path, text, sync=True):
    with atomic(path, sync) as temporary:  # a file's name may have bytes that are no UTF-8
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path, value, sync=True):
    write_text(path, json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n", sync)


def read_bytes(path):
    """The bytes of a file; UserError if it is missing, or a pipe or device, which may never end."""
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise UserError(f"{path} cannot be read: it is not a regular file")
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None


def read_json(path):
    """The value in a JSON file; UserError if it is missing or broken."""
    try:
        return json.loads(read_bytes(path).decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore or remove it") from None


def write_csv(path, frame):
    write_text(path, frame.to_csv(index=False))


def read_rows(path, columns):
    """[(line number, row as a dict)] of a csv; the cells of `columns` are stripped. UserError for a
    file, a row, a column or a cell that is missing.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_bytes(path).decode("utf-8-sig"), newline=""))
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a readable csv ({error})") from None
    if not rows:
        raise UserError(f"{path} has no rows; its columns must be {', '.join(columns)}")
    if lacking := [name for name in columns if name not in reader.fieldnames]:
        names = ", ".join(map(repr, reader.fieldnames))
        raise UserError(f"{path} line 1: column {lacking[0]} is missing; it has {names[:200]}")
    for line, row in rows:
        for name in columns:
            row[name] = (row.get(name) or "").strip()
            if not row[name]:
                raise UserError(f"{path} line {line}: column {name} is missing or empty")
    return rows
