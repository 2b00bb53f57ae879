"""The processes of a run and what they print: ranks, cores, progress bars, plurals."""

import importlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import wait

from tqdm import tqdm

from common.errors import UserError
from common.imports import quick_imports


def progress(iterable=None, **options):
    """A tqdm bar on rank 0 and on a terminal; silent in log files and in side_by_side()."""
    disable = True if rank() or multiprocessing.parent_process() else None
    return tqdm(iterable, disable=disable, dynamic_ncols=True, leave=False, **options)


def say(*words):
    """Prints on rank 0, above any progress bar."""
    if rank() == 0:
        tqdm.write(" ".join(str(word) for word in words), file=sys.stdout)
        sys.stdout.flush()


def counted(number, one, many=None):
    """ "1 photo" or "2 photos"; `many` where the plural is not `one` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def duration(seconds):
    """ "40 s", "12 min" or "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


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


def side_by_side(work, given, answer, heard):
    """Runs work(place, *given[k]) in a new process for each k, until all have ended.

    work: a function of a module; place: a multiprocessing Connection. To None that it sends through
    it, it receives answer(); a tuple goes to heard(*tuple). An exception in one of them or here is
    raised here, once all are killed; UserError if one was killed by others. They do not outlive
    this process.
    """
    context, workers = multiprocessing.get_context("spawn"), {}
    compiles = "torch._dynamo.eval_frame" in sys.modules  # the compiler itself has been imported
    name = work.__module__, work.__name__, compiles
    try:
        for own in given:
            place, theirs = context.Pipe()
            process = context.Process(target=_worker, args=(name, theirs, *own), daemon=True)
            previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for this process
            try:
                process.start()
            finally:
                signal.signal(signal.SIGINT, previous)
            theirs.close()
            workers[place] = process
        while workers:
            for place in wait([*workers]):
                try:
                    told = place.recv()
                    if told is None:
                        place.send(answer())
                except (EOFError, ConnectionError):
                    process = workers.pop(place)
                    process.join()
                    if code := process.exitcode:
                        reason = f"a worker ended with exit code {code}"
                        raise UserError(
                            f"{reason}; try fewer --workers if memory ran out"
                        ) from None
                    continue
                if isinstance(told, Exception):
                    raise told
                if told is not None:
                    heard(*told)
    finally:
        for process in workers.values():
            process.kill()
            process.join()


def _worker(name, place, *given):
    """A process of side_by_side(). name: module and name of the work, and whether it compiles."""

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own, of several processes, leaks where this is killed
    try:
        with quick_imports(name[2]):
            work = getattr(importlib.import_module(name[0]), name[1])
        work(place, *given)
    except Exception as error:
        error.add_note(traceback.format_exc())
        place.send(error)
        os._exit(1)  # without a last flush, which complains if nobody reads the output any more
