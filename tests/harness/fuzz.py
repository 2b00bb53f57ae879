"""Thousands of mutated files through the readers: an answer or a UserError, and nothing else.

An input is told by its reader and its number, which seed it, so that each can be made again:
`python -m harness --fuzz 20000 --only 'oof.csv 1234'`.
"""

import io
import json
import os
import random
import resource
import signal
import time
from argparse import Namespace
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np
import torch

from common.errors import OUR_FAULTS, UserError
from common.files import HOME, cached
from dataset import read_eval, read_train
from experiment import reader
from harness import folder, mutate
from model import load_model
from photos.reading import read_matte, read_photo
from search import space
from training import checkpoint, teaching

SECONDS = 20  # for one input, on a busy machine
MEMORY = 1500  # MB that one input may add: a photo of the most pixels that are allowed is below
CHUNK = 500


@dataclass
class Reader:
    """A file that is mutated, and who reads it.

    seeds: the bytes to start from; name: of the file, in a folder that prepare(template, place)
    fills; read(place): reads it; told(answer): what must be as in the unspoilt file whenever it is
    accepted, which only files with a checksum promise.
    """

    kind: str
    name: str
    seeds: list
    prepare: object
    read: object
    told: object = None


@dataclass
class Tally:
    """What came of the inputs of one kind."""

    inputs: int = 0
    accepted: int = 0
    slowest: float = 0.0
    memory: float = 0.0
    failures: list = field(default_factory=list)


FIXES = b"""id,field,from,to,confidence,note
x,gender,male,female,sure,
y,age,55,60,0.95,why
z,mask:mask1,wear,normal,some,
"""


def readers(template):
    """[Reader] over the files of a template folder."""
    return photo_readers(template) + table_readers(template) + run_readers(template)


def nothing(place):
    pass


def photo_readers(template):
    photo = next(template.glob("data/train/images/0*/mask1.jpg"))
    image = cv2.imread(str(photo))
    suffixes = (".jpg", ".png", ".webp", ".bmp", ".tiff")
    photos = [photo.read_bytes(), *(cv2.imencode(s, image)[1].tobytes() for s in suffixes)]
    matte = next(template.glob("data/train/mattes/grabcut/*/*.png")).read_bytes()
    add = partial(Reader, "photos", prepare=nothing)
    return [
        add("x.jpg", photos, read=lambda place: read_photo(place / "x.jpg")),
        add("x.png", [matte], read=lambda place: read_matte(place / "x.png")),
    ]


def table_readers(template):
    rows = (template / "data/train/train.csv").read_text(encoding="utf-8").splitlines()[:4]
    listed = (template / "data/eval/info.csv").read_bytes()
    spaces = [path.read_bytes() for path in (template / "space.json", HOME / "search_space.json")]
    images = copied("data/train/images", "images")
    add = partial(Reader, "tables", prepare=nothing)
    return [
        add("train.csv", ["\n".join([*rows, ""]).encode()], prepare=images, read=read_train),
        add("info.csv", [listed], read=read_eval),
        add("fixes.csv", [FIXES], read=lambda place: teaching.read_fixes(place / "fixes.csv")),
        add("space.json", spaces, read=lambda place: space.read(place / "space.json", [])),
    ]


def run_readers(template):
    def add(name, read, told=None):
        seed = (template / name.replace("run/", "runs/joint/", 1)).read_bytes()
        return Reader("runs", name, [seed], copied("runs/joint", "run"), read, told)

    def whole(place):
        return reader.read_run(place / "run")

    state = (template / "runs/half/fold0/label/last.pt").read_bytes()
    key = torch.load(io.BytesIO(state[:-32]), weights_only=True)["of"]  # behind it is its digest
    return [
        add("run/config.json", lambda place: reader.read_config(place / "run")),
        add("run/folds.csv", lambda place: reader.read_folds(place / "run")),
        add("run/oof.csv", whole, told_oof),
        add("run/metrics.json", whole),
        add("run/fold0/log.csv", whole),
        add("run/fold0/label/best.json", read_weights, told_weights),
        add("run/fold0/label/best.safetensors", read_weights, told_weights),
        Reader("runs", "last.pt", [state], nothing, partial(read_state, key=key), told_state),
        Reader("runs", "store.npy", [STORE], make_store, read_store, bytes),
        Reader("runs", "store.json", [b"{}"], make_store, read_store, bytes),
    ]


def copied(source, name):
    def prepare(place):
        folder.copy(place.parent / "template" / source, place / name)

    return prepare


# ---- readers of files that a checksum covers, and what they must give


class Near:
    """Numbers that may differ by as much as a table may in its sums."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __eq__(self, other):
        same = self.values.shape == other.values.shape
        return same and np.allclose(self.values, other.values, rtol=0, atol=1e-4)


def told_oof(run):
    """Labels and probabilities; whose they are is checked against the table of photos."""
    values = np.column_stack([run.oof.label, run.probs])
    return Near(values[np.lexsort(values.T.round(3)[::-1])].mean(0))


def read_weights(place):
    return load_model(place / "run/fold0/label/best.safetensors")


def told_weights(answer):
    model, info = answer
    return repr(info), [value.numpy().tobytes() for value in model.state_dict().values()]


class Taking:
    """Takes whatever state it is given, as a module and an optimizer of any shape."""

    def load_state_dict(self, state):
        self.state = {key: value.clone() for key, value in state.items() if hasattr(value, "clone")}


def read_state(place, key):
    task = Namespace(folder=place, key=key, device="cpu", ema=None, scaler=Taking())
    task.model, task.optimizer = Taking(), Taking()
    checkpoint.load_state(task)
    return task


def told_state(task):
    return [value.numpy().tobytes() for value in task.model.state.values()]


STORE = b"\x93NUMPY\x01\x00v\x00" + bytes(3000)


def write_store(path):
    path.write_bytes(STORE)
    return {"broken": {}}


def make_store(place):
    cached(place / "store.npy", write_store)


def read_store(place):
    make_store(place)
    return (place / "store.npy").read_bytes()


# ---- one input, a chunk of them, all of them


class Hang(Exception):
    pass


def alarm(number, frame):
    raise Hang


def one_input(one, number, place, wanted):
    """(accepted, complaint or None) of one mutated file."""
    chance = random.Random(f"{one.name} {number}")
    path = place / one.name
    data = mutate.mutate(chance, chance.choice(one.seeds), one.seeds)
    folder.replace(path, data)
    signal.alarm(SECONDS)
    try:
        answer = one.read(place)
        same = wanted is None or one.told(answer) == wanted
        return True, None if same else "accepted, with another answer than the whole file"
    except UserError as error:
        return False, None if str(error) else "an empty message"
    except OSError as error:  # which a command tells in one line too
        told = error.errno not in OUR_FAULTS
        return False, None if told else f"{type(error).__name__}: {error}"
    except Hang:
        return False, f"takes more than {SECONDS} s"
    except BaseException as error:
        return False, f"{type(error).__name__}: {str(error)[:150]}"
    finally:
        signal.alarm(0)


def chunk(one, numbers, place):
    """Runs inputs in this process, which ends; its tally is left in place/tally.json."""
    place.mkdir(parents=True)
    one.prepare(place)
    os.chdir(place)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    signal.signal(signal.SIGALRM, alarm)
    path = place / one.name
    if one.told and one.name != "store.json":
        folder.replace(path, one.seeds[0])
    wanted = one.told(one.read(place)) if one.told else None
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tally = Tally()
    for number in numbers:
        (place / "at").write_text(str(number))
        before = time.perf_counter()
        accepted, complaint = one_input(one, number, place, wanted)
        tally.slowest = max(tally.slowest, time.perf_counter() - before)
        tally.inputs, tally.accepted = tally.inputs + 1, tally.accepted + accepted
        if complaint:
            tally.failures.append(f"{one.name} {number}: {complaint}")
    tally.memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024
    if tally.memory > MEMORY:
        tally.failures.append(f"{one.name} {numbers}: {tally.memory:.0f} MB")
    (place / "tally.json").write_text(json.dumps(vars(tally)))


def run_chunk(job):
    """The Tally of inputs that run in a process of their own, which may crash."""
    one, numbers, place = job
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            chunk(one, numbers, place)
        except BaseException as error:
            (place / "error").write_text(f"{type(error).__name__}: {error}")
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if (place / "tally.json").exists():
        tally = Tally(**json.loads((place / "tally.json").read_text()))
    else:
        at = (place / "at").read_text() if (place / "at").exists() else "start"
        why = (place / "error").read_text() if (place / "error").exists() else f"status {status}"
        tally = Tally(len(numbers), failures=[f"{one.name} {at}: the process has ended: {why}"])
    folder.remove_path(place)
    return tally


def jobs(template, home, count, only=""):
    """[(kind, job of run_chunk())] of so many inputs of each kind; only: "NAME NUMBER" is one."""
    every, found = readers(template), []
    for kind in dict.fromkeys(one.kind for one in every):
        some = [one for one in every if one.kind == kind]
        for one in some:
            share = range(-(-count // len(some)))
            name, _, number = only.rpartition(" ")
            if number.isdecimal():
                share = range(int(number), int(number) + 1) if name == one.name else ()
            for start in range(0, len(share), CHUNK):
                numbers = share[start : start + CHUNK]
                place = home / f"fuzz{len(found)}"
                found.append((kind, (one, numbers, place)))
    return found


def summary(tallies):
    """The table of what came out by kind. tallies: [(kind, Tally)]."""
    rows = [f"{'kind':12} {'inputs':>7} {'accepted':>9} {'failed':>7} {'slowest':>9} {'memory':>9}"]
    for kind in dict.fromkeys(kind for kind, _ in tallies):
        some = [tally for name, tally in tallies if name == kind]
        inputs, accepted = (sum(getattr(t, key) for t in some) for key in ("inputs", "accepted"))
        failed = sum(len(tally.failures) for tally in some)
        slowest, memory = (max(getattr(t, key) for t in some) for key in ("slowest", "memory"))
        rows.append(
            f"{kind:12} {inputs:7} {accepted:9} {failed:7} {slowest:7.2f} s {memory:6.0f} MB"
        )
    return "\n".join(rows)
