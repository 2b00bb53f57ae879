"""Errors in one line: wrong input ends a command with exit code 2, never with a traceback."""

import argparse
import atexit
import errno
import gc
import io
import os
import signal
import sys
import threading
from pathlib import Path

# Those of a program that does wrong; all others tell of files, disks and the machine.
OUR_FAULTS = (None, errno.EBADF, errno.EINVAL)
# In a RuntimeError of torch on a CPU, of CUDA and MPS, of the libraries of CUDA.
NO_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")

# OpenCV reads it when it is imported. Its own limit of four times as many pixels lets a damaged
# header of a photo take 4 GB.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))


class UserError(argparse.ArgumentTypeError):
    """Wrong input, also of a flag. The message is one line: what is wrong, where, what to do."""

    exit_code = 2


def _told(kind, error, traceback):
    """Ctrl-C while a command imports what stands at its top: a line, no traceback."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def _told_of_thread(args):
    """Of a file that a thread of TensorBoard cannot write, the main thread tells."""
    if not issubclass(args.exc_type, OSError):
        threading.__excepthook__(args)


sys.excepthook, threading.excepthook = _told, _told_of_thread


def _in_words(error):
    """What is wrong with the input or the machine; None if it is the program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno not in OUR_FAULTS:
        where = f" {os.fsdecode(error.filename)}" if error.filename else ""
        return f"cannot read or write{where}: {error.strerror}"
    torchs = isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)
    if isinstance(error, MemoryError) or torchs:
        return "not enough memory; try smaller batches or photos, or fewer processes"
    return None


def run_command(main):
    """Calls main() as a command: wrong input, a full disk, too little memory and what else happens
    to files end in one line and exit code 2, or that of the UserError; Ctrl-C in one and 130.
    """
    name, came = Path(sys.argv[0]).name, []

    def interrupt(*_):
        came.append(True)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):  # the name of a file need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
        print(end="", flush=True)
        if "RANK" in os.environ:
            os._exit(0)  # a thread of gloo that asks for Python while that ends aborts the process
        atexit.register(gc.disable)  # looking once more for garbage then takes half a second
        return
    except (Exception, KeyboardInterrupt) as error:
        code, message = getattr(error, "exit_code", 2), _in_words(error)
        if message is None:
            # An import that is interrupted may fail in any way of its own.
            if not (came or isinstance(error, KeyboardInterrupt)):
                raise
            print(f"{name}: interrupted", file=sys.stderr)
            sys.exit(130)
    message = " ".join(message.splitlines())  # a name may hold anything
    print(f"{name}: error: {message}", file=sys.stderr)
    try:
        print(end="", flush=True)
    except OSError:  # nobody reads it, or its disk is full: Python would complain once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
