"""Mattes: who is foreground in each photo, made once, checked, kept as 8-bit PNG files.

Each method has a folder with one matte a photo, `meta.json` (what the mattes were made with,
written first) and `rejected.csv` (the mattes that were no good, the full photo in their place).
"""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from background import grabcut, rembg_net
from common.errors import UserError
from common.files import atomic, read_json, write_csv, write_json
from common.processes import cores, progress, rank, say, world_size
from photos.reading import default_matte_dir, matte_path, read_photo

METHODS = ("grabcut", "rembg", "rembg_grabcut")
VERSION = 1  # raise it when the same request would give other mattes
BATCH = 32  # photos a call on a GPU
BIG = 1 << 30  # bytes of model files that the sessions of all workers may take on a CPU
# A matte is rejected beyond these; people in portraits cover a third to nine tenths.
LEAST, MOST, LEAST_CENTRE = 0.03, 0.98, 0.1
LEAST_SURE = 0.5  # a network whose highest probability is lower has found nothing
LEAST_CONTRAST = 4.0  # standard deviation of grey levels below which a photo shows nothing


@dataclass
class Job:
    """One method on one folder of photos; broken and shares are filled by the workers."""

    root: Path
    matte_dir: Path
    method: str
    on_error: str
    model: rembg_net.Model | None
    device: str
    workers: int
    broken: list = field(default_factory=list)
    shares: list = field(default_factory=list)

    @property
    def folder(self):
        return self.matte_dir / self.method

    def path(self, name):
        return matte_path(self.matte_dir, self.method, name)

    def note(self, path):
        """Where the rejection of one matte is noted, for rejected.csv."""
        return (self.folder / ".rejected" / path.relative_to(self.folder)).with_suffix(".json")


def ensure(
    root,
    names,
    method,
    matte_dir=None,
    rembg_model="u2netp",
    device="auto",
    on_error="stop",
    workers=None,
    overwrite=False,
):
    """Makes the mattes that are missing; returns the method's meta.json as a dict.

    root, names: as dataset.find_images gives them. method: one of METHODS. matte_dir: beside the
    images folder by default. device: auto, cpu or cuda[:N], for the network. on_error: "stop" at a
    broken photo, or "skip" it (counted, without a matte). workers: threads, all cores by default.
    overwrite: makes all of these mattes anew. Under torchrun each rank makes its share of `names`;
    the caller waits for the others. UserError for wrong input, naming it.
    """
    if method not in METHODS:
        raise UserError(f"--bg {method}: is none of {' '.join(METHODS)}")
    matte_dir = Path(matte_dir) if matte_dir else default_matte_dir(root)
    model = rembg_net.find_model(rembg_model) if method != "grabcut" else None
    workers = workers or max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    job = Job(Path(root), matte_dir, method, on_error, model, device, workers)
    mine = names[rank() :: world_size()]
    meta = _start(job, names, mine, overwrite)
    todo = [name for name in mine if not job.path(name).exists()]
    start = time.perf_counter()
    if todo:
        _clean(job, todo)
        _work(job, todo)
    seconds = time.perf_counter() - start
    _summary(job, names, len(mine) - len(todo), _write_rejected(job), seconds)
    return meta


def options_of(method, model):
    """What decides the pixels of a method's mattes, for meta.json."""
    options = {"version": VERSION}
    if method != "rembg":
        options["grabcut"] = grabcut.VERSION
    if model:
        options |= {"rembg_model": model.name, "sha256": model.sha256}
    return options


def _start(job, names, mine, overwrite):
    """Checks or writes meta.json; with overwrite, removes this rank's share of the old mattes."""
    options = options_of(job.method, job.model)
    old = _kept_options(job.folder)
    if old not in (None, options) and not overwrite:
        raise UserError(
            f"{job.folder} holds mattes made with {_words(old)}, not {_words(options)}; "
            "make them anew with --overwrite, or give another --matte_dir"
        )
    if overwrite and old is not None:
        doomed = [job.path(name) for name in mine]
        if old != options and rank() == 0:  # those of other photos are out of date too
            doomed += set(job.folder.rglob("*.png")) - {job.path(name) for name in names}
        for path in doomed:
            path.unlink(missing_ok=True)
            job.note(path).unlink(missing_ok=True)
    if old == options:
        return read_json(job.folder / "meta.json")
    versions = {"opencv": cv2.__version__, "numpy": np.__version__}
    if job.model:
        versions["onnxruntime"] = rembg_net.runtime_version()
    meta = {"method": job.method, "options": options, "versions": versions}
    try:
        write_json(job.folder / "meta.json", meta)
    except OSError as error:
        raise UserError(
            f"cannot write mattes to {job.folder} ({error.strerror}); give another --matte_dir"
        ) from None
    return meta


def _kept_options(folder):
    """The options in a method's meta.json; None without mattes, {} if they have no meta.json."""
    if not any(folder.rglob("*.png")):
        return None
    path = folder / "meta.json"
    return read_json(path).get("options", {}) if path.exists() else {}


def _words(options):
    return " ".join(f"{key}={str(value)[:12]}" for key, value in options.items()) or "no meta.json"


def _clean(job, todo):
    """Removes what a killed run left behind of these photos."""
    paths = {job.path(name) for name in todo}
    paths |= {job.note(path) for path in paths}
    for path in job.folder.rglob(".*.tmp"):  # .<file>.<process>.tmp
        if path.with_name(path.name[1:].rsplit(".", 2)[0]) in paths:
            path.unlink(missing_ok=True)


def _work(job, todo):
    """Makes the mattes of `todo` with all workers."""
    net = _open_on_gpu(job) if job.model and job.device != "cpu" else None
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the workers have the cores already
    try:
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(job.workers) as pool:
            try:
                made = _in_batches(job, todo, pool, net) if net else _each(job, todo, pool)
                for _ in progress(made, total=len(todo), desc=job.method):
                    pass
            finally:  # after an error or Ctrl-C, what has not begun is given up
                pool.shutdown(cancel_futures=True)
    finally:
        cv2.setNumThreads(threads)


def _each(job, todo, pool):
    """On the CPU: each worker takes a photo from its file to its matte, with a net of its own.

    One thread a net is fastest while all of them fit in memory; else all share one.
    """
    fits = bool(job.model) and job.model.path.stat().st_size * job.workers <= BIG
    shared = rembg_net.open_net(job.model, "cpu", job.workers) if job.model and not fits else None
    own = threading.local()
    reuse = job.method == "rembg_grabcut" and _kept_options(job.matte_dir / "rembg") == options_of(
        "rembg", job.model
    )

    def network(name, photo):
        kept = _kept_matte(job, name, photo.shape[:2]) if reuse else None
        if kept is not None:
            return kept, 1.0
        if fits and not hasattr(own, "net"):
            own.net = rembg_net.open_net(job.model, "cpu", 1)
        net = own.net if fits else shared
        return net.finish(net.forward([net.prepare(photo)])[0], photo.shape[:2])

    def one(name):
        photo = _read(job, name)
        if photo is not None:
            _finish(job, name, photo, *(network(name, photo) if job.model else (None, 1.0)))

    return pool.map(one, todo)


def _open_on_gpu(job):
    """The net on the GPU; None if --device auto finds that onnxruntime cannot use one."""
    if job.device == "auto" and not rembg_net.has_cuda():
        return None
    try:
        net = rembg_net.open_net(job.model, "cuda" if job.device == "auto" else job.device, 1)
    except UserError as error:
        if job.device != "auto":
            raise
        say(f"on the CPU, since {error}")
        return None
    if not net.batches:
        say(f"{job.model.name} takes one photo a call: no batches")
    return net


def _in_batches(job, todo, pool, net):
    """On a GPU: the workers read, prepare, finish and write; this thread runs the net."""

    def read(name):
        photo = _read(job, name)
        return name, photo, None if photo is None else net.prepare(photo)

    def finish(item):
        (name, photo, _), raw = item
        _finish(job, name, photo, *net.finish(raw, photo.shape[:2]))

    batches = [todo[i : i + BATCH] for i in range(0, len(todo), BATCH)]
    ahead = pool.map(read, batches[0])
    done = []
    for i, batch in enumerate(batches):
        ready = [item for item in ahead if item[1] is not None]
        if i + 1 < len(batches):
            ahead = pool.map(read, batches[i + 1])
        raws = net.forward([item[2] for item in ready]) if ready else []
        list(done)  # waits for the writing of the last batch: an error in it ends the run here
        done = pool.map(finish, zip(ready, raws, strict=True))
        yield from batch
    list(done)


def _read(job, name):
    """The photo, or None where it is broken and on_error says skip."""
    try:
        return read_photo(job.root / name)
    except UserError as error:
        if job.on_error == "stop":
            raise UserError(f"{error}; mend or remove it, or use --on_error skip") from None
        job.broken.append(name)
        return None


def _kept_matte(job, name, shape):
    """The network's matte that the method rembg has kept of a photo, if it was no rejected one."""
    path = matte_path(job.matte_dir, "rembg", name)
    matte = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.exists() else None
    if matte is None or matte.shape != shape or matte.min() == 255:
        return None
    return matte


def _finish(job, name, photo, matte, sure):
    """Cuts, checks and writes one matte."""
    reason = "the photo is blank" if photo.std() < LEAST_CONTRAST else None
    if not reason and sure < LEAST_SURE:
        reason = f"the network found nothing (its highest probability is {sure:.2f})"
    if not reason and matte is not None:  # what the network got wrong, GrabCut cannot mend
        reason = fault(matte)
    if not reason and job.method != "rembg":
        matte = grabcut.grabcut(photo, matte)
        reason = fault(matte)
    share = 0.0 if matte is None else float(matte.mean() / 255)
    path = job.path(name)
    note = job.note(path)
    if reason:
        matte = np.full(photo.shape[:2], 255, np.uint8)
        # Noted before the matte is there: a run killed in between does this photo again.
        write_json(note, {"image": name, "reason": reason, "foreground": share})
    else:
        note.unlink(missing_ok=True)
    write_matte(path, matte)
    job.shares.append(share)


def fault(matte):
    """Why a matte, uint8 (H, W), cannot be that of a portrait; None if it can."""
    height, width = matte.shape
    share = matte.mean() / 255
    centre = matte[height // 4 :, width // 3 : -(width // 3) or None].mean() / 255
    if share < LEAST:
        return f"covers less than {LEAST:.0%}"
    if share > MOST:
        return f"covers more than {MOST:.0%}"
    if centre < LEAST_CENTRE:
        return f"covers less than {LEAST_CENTRE:.0%} of the centre"
    return None


def write_matte(path, matte):
    """Writes a matte as PNG, atomically, packed for speed: runs of one value are what it has."""
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY]
    data = cv2.imencode(".png", matte, [*options, cv2.IMWRITE_PNG_STRATEGY_RLE])[1]
    with atomic(path) as temporary:
        data.tofile(temporary)


def _write_rejected(job):
    """rejected.csv from all notes, those of other ranks and runs too; returns the table.

    The last rank to end writes them all.
    """
    notes = sorted((job.folder / ".rejected").rglob("[!.]*.json"))
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in notes]
    table = pd.DataFrame(rows, columns=["image", "reason", "foreground"]).sort_values("image")
    write_csv(job.folder / "rejected.csv", table.round({"foreground": 4}))
    return table


def _summary(job, names, kept, rejected, seconds):
    """Prints one line; of the mattes made by this rank, where there are several."""
    made = len(job.shares)
    line = f"{job.method}: {made} mattes made, {kept} kept, "
    line += f"{rejected.image.isin(set(names)).sum()} rejected"
    if made:
        line += f"; {seconds:.1f} s, {made / seconds:.1f} photos/s"
        line += f", mean foreground {np.mean(job.shares):.1%}"
    if job.broken:
        line += f"; {len(job.broken)} broken, skipped (the first: {min(job.broken)})"
    say(line)
