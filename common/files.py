"""Files: written whole or not at all, locked, and read with one clear line if they are wrong."""

import contextlib
import csv
import fcntl
import json
import os
from pathlib import Path

from common.errors import UserError

HOME = Path(__file__).resolve().parent.parent  # of the project
WEIGHTS = HOME / "weights"


@contextlib.contextmanager
def atomic(path):
    """Yields a temporary path beside `path`; renames it to `path` if the block ends well.

    A crash leaves the old file as it was; an exception also removes the temporary one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:  # of a full disk, which names no file
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


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
        else:
            yield True


def write_text(path, text):
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value):
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def read_json(path):
    """The value in a JSON file; UserError if it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore or remove it") from None


def write_csv(path, frame):
    """Writes a pandas table without its index, atomically."""
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False)


def read_rows(path, columns):
    """[(line number, row as a dict)] of a csv; the cells of `columns` are stripped.

    UserError for a file, a column or a cell that is missing.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: column {', '.join(missing)} is missing")
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a readable csv ({error})") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    if not rows:
        raise UserError(f"{path} has no rows")
    for line, row in rows:
        for name in columns:
            if not (row[name] or "").strip():
                raise UserError(f"{path} line {line}: {name} is empty")
            row[name] = row[name].strip()
    return rows
