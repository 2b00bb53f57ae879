"""Mattes: who is foreground in each photo, made once, checked, kept as 8-bit PNG files.

Each method has a folder with one matte a photo, `meta.json` (what the mattes are made with, written
first), `photos.json` (what is known of their photos) and `rejected.csv` (the mattes that were no
good, the full photo in their place). A matte belongs to the bytes of its photo (photos/reading.py);
ensure() makes again what does not.
"""

import contextlib
import os
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


@dataclass
class Job:
    """One method on one folder of photos."""

    root: Path
    method: str
    folder: Path
    paths: dict  # {name: its matte's file}
    model: rembg_net.Model | None
    how: Matting
    known: dict  # what photos.json says: {name: stamp and digest of the photo, "; ", why rejected}
    new: dict = field(default_factory=dict)  # what this process adds to it
    broken: list = field(default_factory=list)  # names of photos that the workers skipped
    shares: list = field(default_factory=list)  # foreground shares, 0 to 1, of the mattes made

    def read(self, name):
        """The bytes of a photo, whose digest is known from now on; UserError if it cannot be read.

        Reading all photos at each start would take longer than all else that is checked there.
        """
        mark, data = reading.stamp(self.root / name), files.read_bytes(self.root / name)
        self.new[name] = mark + reading.digest(data)
        return data

    def holds(self, name):
        """Whether there is a whole matte of this photo as it is now."""
        with contextlib.suppress(OSError, UserError):  # one of them cannot be read
            made, mark = files.read_bytes(self.paths[name]), reading.stamp(self.root / name)
            own = self.known.get(name, "")
            if not own.startswith(mark):
                self.read(name)
                own = self.new[name]
                if reading.read_matte(self.paths[name]).min() == 255:
                    return False  # why it was rejected is not known any more
            return made.endswith(reading.tie(own.removeprefix(mark).partition("; ")[0]))
        return False


def ensure(root, names, method, matting):
    """Makes the mattes that are missing or of other photos; returns what they are made with.

    root, names: as dataset.find_images gives them. method: one of METHODS. matting: a Matting.
    Under torchrun each rank makes its share of `names`; the caller waits for the others.
    UserError for wrong input, naming it, and for two photos that would share one matte.
    """
    matte_dir = Path(matting.matte_dir or reading.default_matte_dir(root))
    inside = matte_dir.resolve().is_relative_to(Path(root).resolve())
    if inside and len(names) > 1:  # one alone was named: nobody takes a matte for a photo
        raise UserError(f"--matte_dir {matte_dir} lies among the photos; give a folder outside")
    model = rembg_net.find_model(matting.rembg_model) if method != "grabcut" else None
    paths, folder = _paths(root, names, matte_dir, method), matte_dir / method
    job = Job(Path(root), method, folder, paths, model, matting, _known(folder))
    options = _start(job)
    mine, start = list(paths)[rank() :: world_size()], time.perf_counter()
    todo = [name for name in mine if matting.overwrite or not job.holds(name)]
    again = sum(os.path.isfile(paths[n]) for n in todo)  # noqa: PTH113  a name may be too long
    if again and not matting.overwrite:
        why = "of other photos, or damaged (each folder of photos needs its own --matte_dir)"
        say(f"to make again: {counted(again, 'matte')} in {folder} {why}")
    if todo:
        say(f"{method}: {counted(len(todo), 'matte')} to make in {folder}")
        _clean(job, todo)
        _make(job, todo)
    if job.shares:
        _save(job)
    elif job.new:
        with contextlib.suppress(OSError):  # mattes that are all there may be on a read-only disk
            _save(job)
    if todo:
        _summary(job, len(mine) - len(todo), time.perf_counter() - start)
    return options


def _known(folder):
    with contextlib.suppress(UserError):  # missing or damaged
        return check(files.read_json(folder / "photos.json"), {str: str}, folder)
    return {}


def _save(job):
    """Adds what is new to photos.json, and lists what it calls rejected in rejected.csv."""
    path = job.folder / "photos.json"
    with files.locked(path.with_suffix(".lock"), wait=True):
        job.known = dict(sorted((_known(job.folder) | job.new).items()))  # others may have added
        notes = [(name, note.partition("; ")[2]) for name, note in job.known.items()]
        rejected = pd.DataFrame([row for row in notes if row[1]], columns=["image", "reason"])
        files.write_csv(job.folder / "rejected.csv", rejected)
        files.write_json(path, job.known, sync=False)


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
    made otherwise, once the network has made one.
    """
    options, old = options_of(job.method, job.model), _kept_options(job.folder)
    other = old not in (None, options)
    others = job.known.keys() - job.paths.keys() if other and job.how.overwrite else ()
    if lost := [name for name in others if (job.root / name).exists()]:
        raise UserError(
            f"{job.folder}: --overwrite would remove mattes of {counted(len(lost), 'photo')} more, "
            "since all were made otherwise; name all photos (no --limit) or another --matte_dir"
        )
    if other and not job.how.overwrite:
        differ = [key for key in options | old if options.get(key) != old.get(key)]
        why = f"names another {', '.join(differ)}" if old else "is missing"
        raise UserError(
            f"{job.folder}: meta.json of its mattes {why}; make them again with preprocess.py "
            f"--bg {job.method} --overwrite, or give another --matte_dir"
        )
    if job.how.overwrite:
        if other and job.model:
            rembg_net.open_net(job.model, job.how.device).matte(np.zeros((8, 8, 3), np.uint8))
        devices.barrier()  # all have seen what is there
        if other and rank() == 0:
            for path in [*job.folder.rglob("*.png"), job.folder / "photos.json"]:
                path.unlink(missing_ok=True)
        devices.barrier()
    if old != options:
        files.check_writable("--matte_dir", job.folder)
        meta = {"method": job.method, "options": options, "opencv": cv2.__version__}
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
            data = job.read(name)
            photo = reading.read_photo(job.root / name, data)
        except UserError as error:
            if job.how.on_error == "stop":
                raise UserError(f"{error}; {reading.SKIP}") from None
            job.broken.append(name)
            job.new[name] = ""
            with contextlib.suppress(OSError):  # that of the photo as it was, if there is one
                path.unlink()
            return
        found, sure = None, 1.0
        with contextlib.suppress(UserError):  # the method rembg has kept none of this photo
            if reuse:
                kept = rembg / path.relative_to(job.folder)
                found = reading.read_matte(kept, photo.shape[:2], data)
        if net and (found is None or found.min() == 255):  # 255: it was rejected
            found, sure = net.matte(photo)
        _finish(job, name, photo, found, sure)

    with threadpool_limits(1, "blas"):
        reading.on_all_cores(one, todo, job.method, workers)


def _finish(job, name, photo, matte, sure):
    """Cuts, checks and writes one matte."""
    reason = None if matte is None else fault(matte)  # which GrabCut cannot fix
    if sure < LEAST_SURE:
        reason = f"the network found nothing (its highest probability is {sure:.2f})"
    if photo.std() < LEAST_CONTRAST:
        reason = "the photo is blank"
    if not reason and job.method != "rembg":
        matte = grabcut.grabcut(photo, matte)
        reason = fault(matte)
    job.shares.append(0.0 if matte is None else matte.mean() / 255)
    if reason:
        matte = np.full(photo.shape[:2], 255, np.uint8)
    # Packed for speed: runs of one value are what a matte has.
    packed = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    packed += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    png = cv2.imencode(".png", matte, packed)[1].tobytes()
    digest = job.new[name].split()[-1]
    with files.atomic(job.paths[name], sync=False) as temporary:
        temporary.write_bytes(png.removesuffix(reading.END) + reading.tie(digest))
    if reason:
        job.new[name] += f"; {reason}"


def fault(matte):
    """Why a matte, uint8 (H, W), cannot be that of a portrait; None if it can."""
    height, width = matte.shape
    share = matte.mean() / 255
    centre = matte[height // 4 :, width // 3 : -(width // 3) or None].mean() / 255
    if share < LEAST:
        return f"covers {share:.1%}, less than {LEAST:.0%}"
    if share > MOST:
        return f"covers {share:.1%}, more than {MOST:.0%}"
    if centre < LEAST_CENTRE:
        return f"covers {centre:.1%} of the centre, less than {LEAST_CENTRE:.0%}"
    return None


def _summary(job, kept, seconds):
    """Prints what was made, by this rank where there are several."""
    made = len(job.shares)
    rejected = sum("; " in job.known.get(name, "") for name in job.paths)
    line = f"{job.method}: {counted(made, 'matte')} made, {kept} kept, {rejected} rejected"
    if made:
        line += f"; {seconds:.1f} s, {made / seconds:.1f} photos/s"
        line += f", mean foreground {np.mean(job.shares):.1%}"
    if job.broken:
        line += f"; {len(job.broken)} broken, skipped (the first: {min(job.broken)})"
    say(line)
