"""Errors in one line: wrong input ends a command with exit code 2, never with a traceback."""

import errno
import sys
from pathlib import Path


class UserError(Exception):
    """Wrong input. The message is one line: what is wrong, where, and what to do."""


def run_command(main):
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
