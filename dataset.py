"""Tables of photos, folds by person, sampling weights; the samples of an epoch in batches."""

import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

import augment
from common.devices import send
from common.errors import UserError
from common.files import read_rows
from common.processes import counted, say
from labels import ATTRIBUTES, HEADS, age_group, encode
from photos.reading import SUFFIXES, is_junk, is_photo

MASK_OF_PHOTO = {f"mask{i}": 0 for i in range(1, 6)} | {"incorrect_mask": 1, "normal": 2}
COLUMNS = ("id", "gender", "race", "age", "path")


@dataclass
class Table:
    """Labelled photos, a row each: image (POSIX path below `root`), person (its folder), id, age
    (years), and the codes mask, gender, age_group and label (see labels.py).
    """

    frame: pd.DataFrame
    root: Path  # the images folder
    notes: list = field(default_factory=list)  # what was unusual or left out, in words


def find_images(data_dir, flag="--data_dir"):
    """All photos of a train layout, an eval layout or any folder, without junk, or one photo.

    Returns (root, names): the images folder, and the sorted POSIX paths below it.
    flag: what named data_dir. UserError if there is none, or if a name is not UTF-8, as tables are.
    """
    if Path(data_dir).is_file() and is_photo(Path(data_dir).name):
        root, names = Path(data_dir).parent, [Path(data_dir).name]
        return root, _utf8(root, names)
    home = _home(data_dir, "train.csv", flag)
    if home:
        table = read_train(home)
        return table.root, sorted(table.frame.image)
    root, names = _images_root(data_dir), []
    beside = (path.name for path in Path(data_dir).iterdir())
    if not Path(data_dir, "info.csv").is_file() and any(map(is_photo, beside)):
        root = Path(data_dir)  # images/ below it are some of them
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not is_junk(name)]
        files = [name for name in files if not is_junk(name)]
        names += [Path(folder, name).relative_to(root).as_posix() for name in files]
    names, every = [name for name in names if is_photo(PurePosixPath(name).name)], names
    if not names:
        raise UserError(f"{flag} {root} holds no photos ({' '.join(SUFFIXES)})")
    if others := {*every} - {*names}:
        kinds = ", ".join(sorted({PurePosixPath(name).suffix or "none" for name in others}))
        say(f"{root}: {counted(len(others), 'file')} left out, of other suffixes ({kinds})")
    return root, _utf8(root, sorted(names))


def _utf8(root, names):
    for name in names:
        if name.encode(errors="ignore").decode() != name:
            raise UserError(f"{root}: the name {name!a} is not UTF-8; rename the file")
    return names


def read_eval(data_dir):
    """(root, names) of the photos that `info.csv` lists, in its order."""
    home = _home(data_dir, "info.csv")
    if not home:
        raise UserError(f"{data_dir} has no info.csv; give the eval folder (--data_dir)")
    rows = read_rows(home / "info.csv", ("ImageID",))
    for line, row in rows:
        _check_inside(home / "info.csv", line, row["ImageID"])
    return _images_root(home), [row["ImageID"] for _, row in rows]


def read_train(data_dir):
    """The Table of the competition's train layout.

    data_dir: the folder with train.csv, or its images folder. The person is the folder (`path`),
    since ids occur twice; photos are found by stem, since suffixes vary. A person with missing
    or surplus photos is used, and noted. UserError for a csv that is wrong, naming its line.
    """
    home = _home(data_dir, "train.csv")
    if not home:
        raise UserError(f"{data_dir} has no train.csv; give the train folder (--data_dir)")
    path, root = home / "train.csv", _images_root(home)
    people, rows, notes = {}, [], defaultdict(list)
    for line, row in read_rows(path, COLUMNS):
        gender, age = _person(path, line, row)
        person = row["path"] = PurePosixPath(row["path"]).as_posix()  # ./a and a/ are a
        if person in people:
            raise UserError(f"{path} line {line}: {person} is on line {people[person]} too")
        people[person] = line
        for stem, name in _photos(root / person, notes):
            mask = MASK_OF_PHOTO[stem]
            group = age_group(age)
            codes = (mask, gender, group, encode(mask, gender, group))
            rows.append((f"{person}/{name}", person, row["id"], age, *codes))
    if not rows:
        raise UserError(f"{root} holds none of the photos that {path} lists")
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.is_dir() and not is_junk(entry.name) and entry.name not in people:
            notes["folders that train.csv does not list"].append(entry.name)
    columns = ["image", "person", "id", "age", "mask", "gender", "age_group", "label"]
    lines = [
        f"{kind}: {len(all_)} ({', '.join(all_[:3])}{', ...' * (len(all_) > 3)})"
        for kind, all_ in notes.items()
    ]
    lines = [line.encode(errors="backslashreplace").decode() for line in lines]  # any bytes
    return Table(pd.DataFrame(rows, columns=columns), root, lines)


def target(frame, head):
    """int64 (N,) classes that a head (a key of labels.HEADS) is to predict."""
    return np.array(frame["age_group" if head == "age" else head], np.int64)


def _home(data_dir, table, flag="--data_dir"):
    """The folder that holds `table`: `data_dir`, or its parent if it is the images folder."""
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"{data_dir} is not a folder; give the folder of the data ({flag})")
    above = (data_dir.absolute().parent, data_dir.resolve().parent)  # of a link, both
    for home in (data_dir, *(above if data_dir.name == "images" else ())):
        if (home / table).is_file():
            return home
    return None


def _images_root(data_dir):
    data_dir = Path(data_dir)
    return data_dir / "images" if (data_dir / "images").is_dir() else data_dir


def _person(path, line, row):
    """(gender code, age in years) of a row of train.csv."""
    _check_inside(path, line, row["path"])
    if row["gender"].lower() not in ATTRIBUTES["gender"]:
        raise UserError(f"{path} line {line}: gender is {row['gender']!r}, not male or female")
    try:
        age = float(row["age"])
    except ValueError:
        age = -1
    if not 0 <= age < 150 or age != int(age):
        raise UserError(f"{path} line {line}: age is {row['age']!r}, not a number of years")
    return ATTRIBUTES["gender"].index(row["gender"].lower()), int(age)


def _check_inside(path, line, name):
    parts = PurePosixPath(name.replace("\\", "/"))
    if not parts.name or set(name) & set("\n\r\0"):
        raise UserError(f"{path} line {line}: {name[:60]!r} is not a name of photos")
    if parts.is_absolute() or ".." in parts.parts:
        raise UserError(f"{path} line {line}: {name!r} leaves the images folder")


def _photos(folder, notes):
    """[(stem, file name)] of one person, in the order of the stems; the rest goes to notes."""
    if not folder.is_dir():
        notes["people without a folder"].append(folder.name)
        return []
    found = {}
    for name in sorted(entry.name for entry in os.scandir(folder)):
        stem = PurePosixPath(name).stem
        if is_junk(name):
            notes["junk files"].append(f"{folder.name}/{name}")
        elif not is_photo(name) or stem not in MASK_OF_PHOTO:
            notes["files beside the seven photos"].append(f"{folder.name}/{name}")
        elif stem in found:
            notes["second files of one photo"].append(f"{folder.name}/{name}")
        else:
            found[stem] = name
    for stem in MASK_OF_PHOTO:
        if stem not in found:
            notes["missing photos"].append(f"{folder.name}/{stem}")
    return sorted(found.items())


def split_people(frame, seed, k_fold=0, val_ratio=0.2):
    """Deals people to folds, stratified on gender x age group.

    Within each cell the people are shuffled; then the cells, one after the other, are dealt like
    cards, so that every cell and the whole differ by at most one person between folds.

    k_fold: number of folds (2 or more), or 0 for one hold-out of `val_ratio` of the people.
    Returns a frame (person, fold) sorted by person. fold is the one that validates the person;
    with a hold-out it is 0, or -1 for those who always train.
    """
    people = frame.drop_duplicates("person").sort_values("person", ignore_index=True)
    cell = people.gender * 3 + people.age_group
    shuffled = np.random.default_rng(seed).permutation(len(people))
    dealt = shuffled[np.argsort(cell.to_numpy()[shuffled], kind="stable")]
    place = np.arange(len(people))
    if k_fold:
        if not 2 <= k_fold <= len(people):
            raise UserError(f"--k_fold {k_fold}: give 2 to {len(people)} (the number of people)")
        fold = place % k_fold
    else:
        held_out = np.floor((place + 1) * val_ratio) > np.floor(place * val_ratio)
        if val_ratio and not held_out.any():
            who = counted(len(people), "person", "people")
            raise UserError(f"--val_ratio {val_ratio} of {who} is nobody: give a larger one")
        fold = np.where(held_out, 0, -1)
    return pd.DataFrame({"person": people.person, "fold": pd.Series(fold, dealt)})


@dataclass
class Data:
    """What one task trains on in one fold."""

    pixels: object  # a store.Pixels of N photos
    names: list  # theirs
    train: np.ndarray  # int64 (n,), which of them
    valid: np.ndarray
    targets: dict  # of training: {head: int64 (N,), "years": float32 (N,), NaN where unknown}
    truth: dict  # of validation: {head: int64 (N,)}


class Epoch:
    """The samples of one epoch of one task.

    data: Data; options: of options.tasks_of(); seed: of this epoch; normalization: (mean, std)
    tensors on the device.

    With V views each photo counts V times. With a weighted sampler the samples are drawn with
    replacement, balancing the classes of the one head, or the 18 classes for several heads.
    The draws do not depend on the batch size, the device or the number of processes.
    """

    def __init__(self, data, options, seed, normalization):
        self.data, self.options, heads = data, options, options["heads"]
        self.normalization, device = normalization, data.pixels.device
        generator = torch.Generator().manual_seed(seed)
        train, views = torch.from_numpy(data.train), data.pixels.views
        self.count = n = len(train) * views
        if options["weighted_sampler"]:
            head = heads[0] if len(heads) == 1 else "label"
            codes = data.targets[head][data.train]
            weights = np.bincount(codes)[codes] ** -float(options["weighted_sampler"])
            weights = torch.from_numpy(weights).repeat(views)
            pick = torch.multinomial(weights, n, replacement=True, generator=generator)
        else:
            pick = torch.randperm(n, generator=generator)
        self.photos, self.views = train[pick % len(train)], pick // len(train)
        self.draws = augment.draw(n, options["augmentation"], generator).to(device)
        self.backgrounds = train[torch.randint(len(train), (n,), generator=generator)]
        self.mixing = next((kind for kind in augment.MIXES if options[kind]), None)
        if self.mixing:
            alpha, size = float(options[self.mixing]), options["resize"]
            self.partners, mix = augment.draw_mix(n, self.mixing, alpha, size, generator)
            self.mix = mix.to(device)
        self.waited = 0.0  # seconds spent on fetching pixels

    def batch(self, rows):
        """(images, own, targets) of the samples `rows`, a slice.

        images: float32 (n, 3, H, W), augmented and normalised; own: {head: int64 (n,)};
        targets: the same, or with mixing {head: float32 (n, classes)}; and where the model
        predicts them, float32 "years" (n,).
        """
        photos, images = self.photos[rows], self._images(rows)
        targets = self._targets(photos)
        own = {head: targets[head] for head in self.options["heads"]}
        if self.mixing:
            partners = self.partners[rows]
            images, share = augment.mix(images, self._images(partners), self.mix[rows], self.mixing)
            for name, other in self._targets(self.photos[partners]).items():
                pair, weight = (other, targets[name]), share
                if name in HEADS:
                    pair = (F.one_hot(codes, HEADS[name]).float() for codes in pair)
                    weight = share[:, None]
                targets[name] = torch.lerp(*pair, weight)
        if self.options.get("channels_last"):
            images = images.contiguous(memory_format=torch.channels_last)
        return images, own, targets

    def _targets(self, photos):
        names = [*self.options["heads"], *["years"] * self.options["years"]]
        of = {name: torch.from_numpy(self.data.targets[name])[photos] for name in names}
        return {name: send(values, self.data.pixels.device) for name, values in of.items()}

    def _images(self, rows):
        start = time.perf_counter()
        pixels = self.data.pixels.batch(self.photos[rows], self.views[rows], self.backgrounds[rows])
        self.waited += time.perf_counter() - start
        draws, strength = self.draws[rows], self.options["augmentation"]
        return augment.apply(pixels, draws, *self.normalization, strength)
