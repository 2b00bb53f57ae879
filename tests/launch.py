"""Commands in processes of their own that start at once, forked from one with all packages."""

import atexit
import multiprocessing
import os
import socket
from functools import cache
from multiprocessing import forkserver

import pytest
from harness import engine

from common.files import HOME


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@cache
def warm():
    """The context of multiprocessing whose processes have imported all packages.

    The process that they are forked from is no test's, so that it has neither threads nor locks.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["harness.warm"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{HOME}{os.pathsep}{HOME / 'tests'}")
        forkserver.ensure_running()
    return context


class Command:
    """A command that has been started as `python COMMAND.py WORDS` with more of an environment."""

    def __init__(self, logs, command, *words, **environment):
        """logs: a folder for what it says, where each command needs a name of its own."""
        number = len(list(logs.glob("*.out")))
        self.files = [logs / f"{command}{number}.{name}" for name in ("out", "err")]
        for path in self.files:
            path.touch()
        given = command, [str(word) for word in words], self.files, environment
        self.process = warm().Process(target=_run, args=given)
        self.process.start()
        atexit.register(self.process.kill)  # where a test has failed before its end
        self.pid = self.process.pid

    def running(self):
        return self.process.exitcode is None

    def send_signal(self, number):
        os.kill(self.pid, number)

    def wait(self, seconds=120):
        """(exit code, output, errors)."""
        self.process.join(seconds)
        assert not self.running(), self.told()
        return self.process.exitcode, *self.told()

    def told(self):
        """[output, errors] until now."""
        return [path.read_text(encoding="utf-8") for path in self.files]


def run_two(logs, command, *words):
    """[(exit code, output, errors)] of a command in two processes, as torchrun starts them."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [Command(logs, command, *words, **shared, RANK=str(rank)) for rank in range(2)]
    return [one.wait() for one in started]


def _run(command, words, files, environment):
    os.environ.update(environment)
    os.setsid()
    engine.child(command, words, HOME, files, None)
