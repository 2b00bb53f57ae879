"""Manners that every command shares: errors in one line, files never half-written, ranks."""

import contextlib
import errno
import fcntl
import json
import os
import sys
from pathlib import Path

from tqdm import tqdm


class UserError(Exception):
    """Wrong input. The message is one line: what is wrong, where, and what to do."""


def run(main):
    """Calls main() as a command: a UserError or a full disk ends in one line and exit code 2."""
    name = Path(sys.argv[0]).name
    try:
        main()
    except UserError as error:
        sys.exit(_fail(name, error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        where = f" {error.filename}" if error.filename else ""
        sys.exit(_fail(name, f"cannot write{where}: {error.strerror}"))
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)


def _fail(name, message):
    print(f"{name}: error: {message}", file=sys.stderr)
    return 2


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


def progress(iterable=None, **options):
    """A tqdm bar on rank 0 and on a terminal; silent in log files."""
    disable = True if rank() else None
    return tqdm(iterable, disable=disable, dynamic_ncols=True, leave=False, **options)


def say(*words):
    """Prints on rank 0, above any progress bar."""
    if rank() == 0:
        tqdm.write(" ".join(str(word) for word in words), file=sys.stdout)
        sys.stdout.flush()


def cores():
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def rank():
    """This process's rank under torchrun, else 0."""
    return int(os.environ.get("RANK", 0))


def world_size():
    """The number of processes under torchrun, else 1."""
    return int(os.environ.get("WORLD_SIZE", 1))
