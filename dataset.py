"""Tables of photos, labels, folds by person, sampling weights."""

import csv
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pandas as pd

from common import UserError
from labels import ATTRIBUTES, HEADS, encode

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MASK_OF_PHOTO = {f"mask{i}": 0 for i in range(1, 6)} | {"incorrect_mask": 1, "normal": 2}
COLUMNS = ("id", "gender", "race", "age", "path")
OLD_FROM = 60


@dataclass
class Table:
    """Labelled photos.

    frame: one row an image: image (POSIX path below `root`), person (its folder), id, age (years),
        and the codes mask, gender, age_group and label (see labels.py).
    root: the images folder.
    notes: what in the data was unusual or left out, in words.
    """

    frame: pd.DataFrame
    root: Path
    notes: list = field(default_factory=list)


def read_photo(path):
    """Decodes a photo to RGB uint8 (H, W, 3), turned upright by its EXIF tag, without alpha.

    UserError if the file is missing or is no image.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        photo = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if len(data) else None
    except cv2.error:
        photo = None
    if photo is None:
        raise UserError(f"{path}: is no readable image")
    return photo


def default_matte_dir(root):
    """Where mattes lie unless told otherwise: beside the images folder."""
    root = Path(root).resolve()
    return root.parent / ("mattes" if root.name == "images" else f"{root.name}_mattes")


def matte_path(matte_dir, method, name):
    """The file of one matte: the photo's path below `method`, as .png."""
    return Path(matte_dir, method, PurePosixPath(name).with_suffix(".png"))


def is_junk(name):
    """True for what file managers and notebooks leave behind (`._a.jpg`, `.DS_Store`, ...)."""
    return name.startswith(".")


def is_photo(name):
    return name.lower().endswith(SUFFIXES) and not is_junk(name)


def find_images(data_dir):
    """All photos of a train layout, an eval layout or any folder, without junk.

    Returns (root, names): the images folder, and the sorted POSIX paths below it.
    UserError if there is none, or if two differ in their suffix only (mattes go by the stem).
    """
    home = _home(data_dir, "train.csv")
    if home:
        table = read_train(home)
        return table.root, sorted(table.frame.image)
    root = _images_root(data_dir)
    names = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not is_junk(name)]
        names += [Path(folder, name).relative_to(root).as_posix() for name in files]
    names = sorted(name for name in names if is_photo(PurePosixPath(name).name))
    if not names:
        raise UserError(f"{root} holds no photos ({' '.join(SUFFIXES)})")
    stems = {}
    for name in names:
        first = stems.setdefault(PurePosixPath(name).with_suffix(""), name)
        if first != name:
            raise UserError(f"{root}: {first} and {name} differ in their suffix only; keep one")
    return root, names


def read_eval(data_dir, flag="--data_dir"):
    """(root, names) of the photos that `info.csv` lists, in its order."""
    home = _home(data_dir, "info.csv", flag)
    if not home:
        raise UserError(f"{data_dir} has no info.csv; give the eval folder ({flag})")
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
    people, rows, notes = {}, [], _Notes()
    for line, row in read_rows(path, COLUMNS):
        gender, age = _person(path, line, row)
        person = row["path"] = PurePosixPath(row["path"]).as_posix()  # ./a and a/ are a
        if person in people:
            raise UserError(f"{path} line {line}: {person} stands on line {people[person]} too")
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
            notes.add("folders that train.csv does not list", entry.name)
    columns = ["image", "person", "id", "age", "mask", "gender", "age_group", "label"]
    return Table(pd.DataFrame(rows, columns=columns), root, notes.lines())


def age_group(age, old_from=OLD_FROM):
    """0, 1, 2 for ages below 30, below `old_from`, and from there on."""
    return int(age >= 30) + int(age >= old_from)


def target(frame, head):
    """int64 (N,) classes that a head (a key of labels.HEADS) is to predict."""
    return np.array(frame["age_group" if head == "age" else head], np.int64)


def _home(data_dir, table, flag="--data_dir"):
    """The folder that holds `table`: `data_dir`, or its parent if it is the images folder."""
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"{data_dir} is no folder; give the folder of the data ({flag})")
    for home in (data_dir, *([data_dir.resolve().parent] if data_dir.name == "images" else [])):
        if (home / table).is_file():
            return home
    return None


def _images_root(data_dir):
    data_dir = Path(data_dir)
    return data_dir / "images" if (data_dir / "images").is_dir() else data_dir


def read_rows(path, columns):
    """[(line number, row as a dict)] of a csv; the cells of `columns` are stripped.

    UserError for a file, a column or a cell that is missing.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: column {', '.join(missing)} is missing")
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a readable csv ({error})") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    if not rows:
        raise UserError(f"{path} has no rows")
    for line, row in rows:
        for name in columns:
            if not (row[name] or "").strip():
                raise UserError(f"{path} line {line}: {name} is empty")
            row[name] = row[name].strip()
    return rows


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
    if parts.is_absolute() or ".." in parts.parts or Path(name).is_absolute():
        raise UserError(f"{path} line {line}: {name!r} leaves the images folder")


def _photos(folder, notes):
    """[(stem, file name)] of one person, in the order of the stems; the rest goes to notes."""
    if not folder.is_dir():
        notes.add("people without a folder", folder.name)
        return []
    found = {}
    for name in sorted(entry.name for entry in os.scandir(folder)):
        stem = PurePosixPath(name).stem
        if is_junk(name):
            notes.add("junk files", f"{folder.name}/{name}")
        elif not is_photo(name) or stem not in MASK_OF_PHOTO:
            notes.add("files that are none of the seven photos", f"{folder.name}/{name}")
        elif stem in found:
            notes.add("second files of one photo", f"{folder.name}/{name}")
        else:
            found[stem] = name
    for stem in MASK_OF_PHOTO:
        if stem not in found:
            notes.add("missing photos", f"{folder.name}/{stem}")
    return sorted(found.items())


class _Notes(dict):
    """What was unusual, by kind."""

    def add(self, kind, what):
        self.setdefault(kind, []).append(what)

    def lines(self):
        return [
            f"{len(what)} {kind}: {', '.join(what[:3])}{', ...' if len(what) > 3 else ''}"
            for kind, what in self.items()
        ]


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
        if not 0 <= val_ratio < 1:
            raise UserError(f"--val_ratio {val_ratio}: give a share of the people, 0 to below 1")
        held_out = np.floor((place + 1) * val_ratio) > np.floor(place * val_ratio)
        if val_ratio and not held_out.any():
            raise UserError(f"--val_ratio {val_ratio} of {len(people)} people is nobody")
        fold = np.where(held_out, 0, -1)
    result = pd.DataFrame({"person": people.person, "fold": 0})
    result.loc[dealt, "fold"] = fold
    return result


def sampling_weights(codes, head, power):
    """float64 (N,) weights (class frequency)^-power for classes `codes` (N,) of a head."""
    counts = np.bincount(codes, minlength=HEADS[head])
    return np.maximum(counts, 1)[codes] ** -float(power)
