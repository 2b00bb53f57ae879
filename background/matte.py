"""Mattes: who is foreground in each photo, made once, checked, kept as 8-bit PNG files.

Each method has a folder with one matte a photo, `meta.json` (what the mattes were made with,
written first) and `rejected.csv` (the mattes that were no good, the full photo in their place).
A matte belongs to the bytes of its photo (photos/reading.py); ensure() makes again what does not.
"""

import contextlib
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from background import grabcut, rembg_net
from common import devices, files
from common.errors import UserError
from common.processes import cores, counted, rank, say, world_size
from common.schema import check
from photos import reading

VERSION = 1  # raise it when the same request would give other mattes
# A matte is rejected beyond these; people in portraits cover a third to nine tenths.
LEAST, MOST, LEAST_CENTRE = 0.03, 0.98, 0.1
LEAST_SURE = 0.5  # a network whose highest probability is lower has found nothing
LEAST_CONTRAST = 4.0  # standard deviation of grey levels below which a photo shows nothing


@dataclass(frozen=True)
class Matting:
    """How mattes are made, and where they are kept.

    device: for the network, "cpu"; "cuda" or "cuda:N", a UserError if onnxruntime cannot use that
    GPU; "auto" or "auto:N", that GPU if it can, else the CPU. Without N it is the process's own.
    """

    matte_dir: Path | str | None = None  # None is the one beside the images folder
    rembg_model: str = "u2netp"  # a model of rembg by name, or an .onnx file
    device: str = "auto"
    on_error: str = "stop"  # at a broken photo, or "skip" it: counted, without a matte
    workers: int | None = None  # threads; None is one a core
    overwrite: bool = False


class Digests:
    """The digests of photos, remembered in a file by size and times of change: reading all photos
    at each start would take longer than all else that is checked there.
    """

    def __init__(self, path):
        self.path, self.new = path, {}
        self.known = self._read()

    def read(self, photo):
        """(bytes, digest) of a photo; UserError if it cannot be read."""
        mark, data = reading.stamp(photo), files.read_bytes(photo)
        found = reading.digest(data)
        self.new[str(photo.absolute())] = mark + found
        return data, found

    def belongs(self, path, photo):
        """Whether a file is a whole matte of this photo."""
        if not os.path.isfile(path):  # noqa: PTH113  False for a name that is too long
            return False
        mark, known = reading.stamp(photo), self.known.get(str(photo.absolute()), "")
        with contextlib.suppress(OSError, UserError):  # one of them cannot be read
            own = known.removeprefix(mark) if known.startswith(mark) else self.read(photo)[1]
            return path.read_bytes().endswith(reading.tie(own))
        return False

    def save(self):
        """Adds what is new to the file, unless its folder is there to be read only."""
        if not self.new:
            return
        lock = files.locked(self.path.with_suffix(".lock"), wait=True)
        with contextlib.suppress(OSError), lock:
            known = self._read() | self.new  # other processes may have added theirs
            files.write_json(self.path, dict(sorted(known.items())), sync=False)

    def _read(self):
        with contextlib.suppress(UserError):  # missing or damaged
            return check(files.read_json(self.path), {str: str}, self.path)
        return {}


@dataclass
class Job:
    """One method on one folder of photos."""

    root: Path
    method: str
    folder: Path
    paths: dict  # {name: its matte's file}
    model: rembg_net.Model | None
    how: Matting
    digests: Digests
    broken: list = field(default_factory=list)  # names of photos that the workers skipped
    shares: list = field(default_factory=list)  # foreground shares, 0 to 1, of the mattes made

    def note(self, path):
        """Where a row of rejected.csv is kept, as JSON; its name is no longer than the matte's."""
        return (self.folder / ".rejected" / path.relative_to(self.folder)).with_suffix(".row")


def ensure(root, names, method, matting):
    """Makes the mattes that are missing or of other photos; returns what they are made with.

    root, names: as dataset.find_images gives them. method: one of METHODS. matting: a Matting.
    Under torchrun each rank makes its share of `names`; the caller waits for the others.
    UserError for wrong input, naming it, and for two photos that would share one matte.
    """
    matte_dir = Path(matting.matte_dir or reading.default_matte_dir(root))
    model = rembg_net.find_model(matting.rembg_model) if method != "grabcut" else None
    paths, known = _paths(root, names, matte_dir, method), Digests(matte_dir / "photos.json")
    job = Job(Path(root), method, matte_dir / method, paths, model, matting, known)
    options = _start(job)
    mine, start = list(paths)[rank() :: world_size()], time.perf_counter()
    every = matting.overwrite
    todo = [n for n in mine if every or not known.belongs(paths[n], job.root / n)]
    foreign = sum(os.path.isfile(paths[n]) for n in todo)  # noqa: PTH113  a name may be too long
    if foreign and not every:
        say(
            f"made again: {counted(foreign, 'matte')} in {job.folder} of other photos with these "
            "names, or of an older version (give each folder of photos its own --matte_dir)"
        )
    if todo:
        _clean(job, todo)
        _make(job, todo)
    known.save()
    _summary(job, len(mine) - len(todo), _write_rejected(job), time.perf_counter() - start)
    return options


def _paths(root, names, matte_dir, method):
    """{name: its matte's file}; UserError if two photos would share one."""
    names, first = dict.fromkeys(str(PurePosixPath(name)) for name in names), {}
    paths = {name: reading.matte_path(matte_dir, method, name) for name in names}
    for name, path in paths.items():
        if first.setdefault(path, name) != name:
            raise UserError(
                f"{root}: {first[path]} and {name} differ in their suffix only, and would share "
                "one matte: rename one, or use --bg none"
            )
    return paths


def options_of(method, model):
    """What decides the pixels of a method's mattes, for meta.json."""
    options = {"version": VERSION}
    if method != "rembg":
        options["grabcut"] = grabcut.VERSION
    if model:
        options |= {"rembg_model": model.name, "sha256": model.sha256}
    return options


def _start(job):
    """Checks or writes meta.json, and returns its options; with overwrite, removes mattes that were
    made otherwise.
    """
    options, old = options_of(job.method, job.model), _kept_options(job.folder)
    other = old not in (None, options)
    if job.how.overwrite:
        devices.barrier()  # all have seen what is there
        if other and rank() == 0:
            shutil.rmtree(job.folder)
        devices.barrier()
    elif other:
        theirs, ours = (
            " ".join(f"{key}={str(value)[:12]}" for key, value in some.items()) or "no meta.json"
            for some in (old, options)
        )
        raise UserError(
            f"{job.folder} holds mattes made with {theirs}, not {ours}; make them again with "
            "--overwrite, or give another --matte_dir"
        )
    if old == options:
        return options
    versions = {"opencv": cv2.__version__, "numpy": np.__version__}
    if job.model:
        import onnxruntime

        versions["onnxruntime"] = onnxruntime.__version__
    files.check_writable("--matte_dir", job.folder)
    meta = {"method": job.method, "options": options, "versions": versions}
    files.write_json(job.folder / "meta.json", meta)
    return options


def _kept_options(folder):
    """The options in a method's meta.json; None without mattes, {} if they have no meta.json."""
    if not any(folder.rglob("*.png")):
        return None
    path = folder / "meta.json"
    return check(files.read_json(path), {"options": dict}, path)["options"] if path.exists() else {}


def _clean(job, todo):
    """Removes what a killed run left behind of these photos."""
    paths = {files.hidden(job.paths[name]) for name in todo}
    for path in job.folder.rglob(".*.tmp"):
        if path.with_name(path.name.rsplit(".", 2)[0]) in paths:
            files.remove_leftover(path)


def _make(job, todo):
    """Makes the mattes of `todo`: each worker takes a photo from its file to its matte."""
    workers = job.how.workers or max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    net = rembg_net.open_net(job.model, job.how.device) if job.model else None
    rembg = job.folder.parent / "rembg"
    reuse = job.method == "rembg_grabcut" and _kept_options(rembg) == options_of("rembg", job.model)

    def one(name):
        path = job.paths[name]
        try:
            data, digest = job.digests.read(job.root / name)
            photo = reading.read_photo(job.root / name, data)
        except UserError as error:
            if job.how.on_error == "stop":
                raise UserError(f"{error}; {reading.SKIP}") from None
            job.broken.append(name)
            with contextlib.suppress(OSError):  # those of the photo as it was, if there are any
                job.note(path).unlink(missing_ok=True)
                path.unlink()
            return
        kept = _kept(rembg / path.relative_to(job.folder), photo, data) if reuse else None
        found, sure = net.matte(photo) if net and kept is None else (kept, 1.0)
        _finish(job, name, photo, found, sure, digest)

    with threadpool_limits(1, "blas"):
        reading.on_all_cores(one, todo, job.method, workers)


def _kept(path, photo, data):
    """The network's matte that the method rembg has kept of a photo; None if it was rejected."""
    with contextlib.suppress(UserError):
        kept = reading.read_matte(path, photo.shape[:2], data)
        return None if kept.min() == 255 else kept


def _finish(job, name, photo, matte, sure, digest):
    """Cuts, checks and writes one matte."""
    reason = None if matte is None else fault(matte)  # which GrabCut cannot fix
    if sure < LEAST_SURE:
        reason = f"the network found nothing (its highest probability is {sure:.2f})"
    if photo.std() < LEAST_CONTRAST:
        reason = "the photo is blank"
    if not reason and job.method != "rembg":
        matte = grabcut.grabcut(photo, matte)
        reason = fault(matte)
    share = 0.0 if matte is None else float(matte.mean() / 255)
    note = job.note(job.paths[name])
    if reason:
        matte = np.full(photo.shape[:2], 255, np.uint8)
        # Noted before the matte is there: a run killed in between does this photo again.
        files.write_json(note, {"image": name, "reason": reason, "foreground": share})
    else:
        note.unlink(missing_ok=True)
    # Packed for speed: runs of one value are what a matte has.
    packed = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    packed += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    png = cv2.imencode(".png", matte, packed)[1].tobytes()
    with files.atomic(job.paths[name], sync=False) as temporary:
        temporary.write_bytes(png.removesuffix(reading.END) + reading.tie(digest))
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


def _write_rejected(job):
    """rejected.csv from all notes, those of other ranks and runs too; returns the table."""
    notes = (job.folder / ".rejected").rglob("[!.]*.row")
    rows = [check(files.read_json(path), {"image": str}, path) for path in notes]
    table = pd.DataFrame(rows, columns=["image", "reason", "foreground"]).sort_values("image")
    text, path = table.round({"foreground": 4}).to_csv(index=False), job.folder / "rejected.csv"
    # Mattes that are all there may be on a read-only disk.
    if not path.exists() or path.read_bytes() != text.encode():
        files.write_text(path, text)
    return table


def _summary(job, kept, rejected, seconds):
    """Prints one line; of the mattes made by this rank, where there are several."""
    made = len(job.shares)
    line = f"{job.method}: {counted(made, 'matte')} made, {kept} kept, "
    line += f"{rejected.image.isin(job.paths.keys()).sum()} rejected"
    if made:
        line += f"; {seconds:.1f} s, {made / seconds:.1f} photos/s"
        line += f", mean foreground {np.mean(job.shares):.1%}"
    if job.broken:
        line += f"; {len(job.broken)} broken, skipped (the first: {min(job.broken)})"
    say(line)
