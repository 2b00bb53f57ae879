"""Photos and mattes that are no such thing, through every command that reads them."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from harness.case import Case, Skip, without_rights, words_of
from harness.engine import error, error_or_works, works
from harness.folder import (
    all_of,
    duplicate,
    fifo,
    flip,
    lines,
    link,
    mkdir,
    mode,
    move,
    remove,
    rename,
    replace,
    text,
    truncate,
    write,
)

CASES = []
PERSON = "000001_female_Asian_60"  # the first of all
PHOTO = f"data/train/images/{PERSON}/incorrect_mask.jpg"
OTHER = "data/train/images/000003_male_Asian_18/incorrect_mask.jpg"
EVAL = "data/eval/images/268134cb0e5d9ef237a1aa559a732b20516d9b5f.jpg"
LISTED = EVAL.rsplit("/", 1)[1]


def add(name, command, argv, prepare, expected, **more):
    CASES.append(Case(f"photos: {name}", "photos", command, argv, prepare, expected, **more))


def encoded(suffix, array, *options):
    return cv2.imencode(suffix, array, list(options))[1].tobytes()


def png_header(width, height):
    """A PNG that promises so many pixels, and has none."""
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", body), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def noise(height=64, width=48, channels=3, kind=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max, (height, width, channels), kind)


# What is no photo: {name: what takes its place, a function of the path}.
NO_PHOTOS = {
    "an empty file": lambda path: write(path, b""),
    "garbage": lambda path: write(path, os.urandom(2000)),
    "text": lambda path: write(path, "<html>not found</html>"),
    "half a photo": lambda path: truncate(path, 0.5),
    "only its first bytes": lambda path: write(path, b"\xff\xd8\xff\xe0"),
    "a FIFO": fifo,
    "a folder": mkdir,
    "a dangling link": lambda path: link(path, "nowhere.jpg"),
    "a link to itself": lambda path: link(path, path.rsplit("/", 1)[1]),
    "/dev/zero": lambda path: link(path, "/dev/zero"),
    "/dev/null": lambda path: link(path, "/dev/null"),
    "a terminal": lambda path: link(path, "/dev/tty"),
    "a bomb of 60000 x 60000": lambda path: write(path, png_header(60000, 60000)),
    "a PNG of no size": lambda path: write(path, png_header(0, 0)),
}
# How each command meets it: the path of the photo, and what its line calls it.
READERS = {
    "train": ("", PHOTO, "incorrect_mask.jpg"),
    "inference": ("", EVAL, LISTED),
    "preprocess": ("--matte_dir m", PHOTO, "incorrect_mask.jpg"),
}
for name, spoil in NO_PHOTOS.items():
    for command, (argv, path, called) in READERS.items():
        if command == "train" and name in ("a dangling link", "a link to itself"):
            continue  # below
        add(f"{name}, {command}", command, argv, spoil(path), error(called))
    add(f"{name}, skipped by train", "train", "--on_error skip", spoil(PHOTO), works("unreadable"))
    add(f"{name}, skipped by inference", "inference", "--on_error skip", spoil(EVAL),
        works("unreadable.*" + LISTED))  # fmt: skip
for name in ("a dangling link", "a link to itself"):
    add(f"{name}, train", "train", "", NO_PHOTOS[name](PHOTO), error_or_works("incorrect_mask"))
add("an unreadable photo of inference is not called left out", "inference", "",
    write(EVAL, b""), error(LISTED, "mean prediction"))  # fmt: skip
add("no rights", "train", "", mode(PHOTO, 0), error("incorrect_mask.jpg", "[Pp]ermission"),
    before=without_rights)  # fmt: skip

GOOD = {
    "grey": encoded(".png", noise(channels=1)),
    "with alpha": encoded(".png", noise(channels=4)),
    "of 16 bits": encoded(".png", noise(kind=np.uint16)),
    "of 1 x 1": encoded(".png", noise(1, 1)),
    "of 1 x 3000": encoded(".png", noise(1, 3000)),
    "of 3000 x 2": encoded(".png", noise(3000, 2)),
    "a BMP": encoded(".bmp", noise()),
    "a TIFF": encoded(".tiff", noise()),
    "a WebP": encoded(".webp", noise()),
    "all white": encoded(".png", np.full((64, 48, 3), 255, np.uint8)),
}
for name, data in GOOD.items():
    add(f"{name} is a photo, train", "train", "", write(PHOTO, data), works())
    add(
        f"{name} is a photo, matte",
        "preprocess",
        "--matte_dir m",
        write(PHOTO, data),
        works("4 mattes"),
    )
    add(f"{name} is a photo, inference", "inference", "", write(EVAL, data), works())


# ---- names


def called(name):
    """The first photo of eval gets this name, also in info.csv; csv quotes are the caller's."""
    plain = name.strip('"').replace('""', '"')
    return all_of(rename(EVAL, plain), text("data/eval/info.csv", LISTED, name))


for name in (
    "with space.jpg", "사진.jpg", "UPPER.JPG", "a'b.jpg", "-dash.jpg", "per%cent.jpg", "#x.jpg",
    "a;b.jpg",
    '"comma,.jpg"', '"quo""te.jpg"', "{brace}.jpg", "two..dots.jpg", "x" * 251 + ".jpg",
    "$HOME.jpg",
    "e\u0301.jpg",
):  # fmt: skip
    add(f"the name {name[:20]!r}", "inference", "--save_probs", called(name), works())
    add(f"the name {name[:20]!r}, matte", "preprocess",
        "--data_dir data/eval --limit 99 --matte_dir m",
        called(name), works("28 mattes"))  # fmt: skip
for name in ("tab\there.jpg", "\u202egnp.jpg", "bell\a.jpg", "line\u2028end.jpg"):
    add(f"the name {name!r}", "inference", "", called(name), error_or_works("info.csv|name"))
    add(f"the name {name!r}, matte", "preprocess", "--data_dir data/eval/images --matte_dir m",
        all_of(called(name), remove("data/eval/info.csv")), error_or_works("name"))  # fmt: skip
add("a name that is no UTF-8", "inference", "--images data/eval/images --save_probs",
    rename(EVAL, b"\xff\xfe.jpg"), error_or_works("UTF-8|name"))  # fmt: skip
add("a name that is no UTF-8, matte", "preprocess", "--data_dir data/eval/images",
    all_of(remove("data/eval/info.csv"), rename(EVAL, b"\xff\xfe.jpg")),
    error_or_works("UTF-8|name"))  # fmt: skip
add("a person's name that is no UTF-8", "train", "",
    all_of(rename(Path(PHOTO).parent.as_posix(), b"\xff_male"),
           text("data/train/train.csv", PERSON, "000001_x")),
    error_or_works("UTF-8|name"))  # fmt: skip
add("a line break in a name", "inference", "--images data/eval/images",
    rename(EVAL, b"a\nb.jpg"), error_or_works("name"))  # fmt: skip
add("a name of 255 bytes and its matte", "preprocess",
    "--data_dir data/eval/images --limit 99 --matte_dir m",
    all_of(remove("data/eval/info.csv"), rename(EVAL, "사" * 83 + "aa.jpg")),
    works("28 mattes"))  # fmt: skip


# ---- folders of photos

HOME = "data/train/images"
FOLDER = f"{HOME}/{PERSON}"
add("a photo is missing", "train", "", remove(PHOTO), works("missing photos: 1"))
add("a person is missing", "train", "", remove(FOLDER), works("people without a folder"))
add("a person more", "train", "", duplicate(FOLDER, f"{HOME}/new"), works("does not list"))
add("a photo more", "train", "", duplicate(PHOTO, f"{FOLDER}/x.jpg"), works("beside the seven"))
add("a photo twice", "train", "", duplicate(PHOTO, f"{FOLDER}/incorrect_mask.png"),
    works("second files of one photo: 1"))  # fmt: skip
add("no photo at all", "train", "", all_of(remove(HOME), mkdir(HOME)),
    error("images", "none of the photos"))  # fmt: skip
add("no folder of photos", "train", "", remove(HOME), error("none of the photos"))
add("a file for the folder of photos", "train", "", write(HOME, b"x"), error("images|photos"))
add("a file for a person", "train", "", write(FOLDER, b"x"), works("people without a folder"))
add("a link in a circle", "train", "", link(f"{FOLDER}/loop", "."), works())
add("a person behind a link", "train", "",
    all_of(move(FOLDER, "elsewhere"), link(FOLDER, "../../../elsewhere")), works())  # fmt: skip
add("all photos of eval are broken", "inference", "--on_error skip",
    lambda folder: [replace(path, b"") for path in folder.glob("data/eval/images/*")],
    error("none of the 28 photos"))  # fmt: skip
add("all photos are broken", "train", "--on_error skip",
    lambda folder: [replace(path, b"") for path in folder.glob(f"{HOME}/[0-9]*/*")],
    error("unreadable|could be read|nobody is left"))  # fmt: skip
add("those who are held out are broken", "train", "--on_error skip --k_fold 2 --fold 0",
    lambda folder: [replace(path, b"") for path in folder.glob(f"{HOME}/0*/[a-z]*")
                    if path.parent.name in held_out(folder)],
    error("unreadable|nobody|no photo"))  # fmt: skip
add("a listed photo is missing", "inference", "", remove(EVAL), error(LISTED))
add("a photo that is not listed", "inference", "", duplicate(EVAL, "data/eval/images/a.jpg"),
    works())  # fmt: skip
add("x.jpg and x.png in info.csv", "inference", "--model_dir runs/split",
    all_of(lambda folder: replace(folder / EVAL.replace(".jpg", ".png"), GOOD["a BMP"]),
           lines("data/eval/info.csv",
               lambda rows: [*rows, LISTED.replace(".jpg", ".png") + ",0"])),
    error_or_works(LISTED[:9], "suffix"),
    then=lambda box, done: [] if done.code else ["one matte for two photos"])  # fmt: skip
add("x.jpg and x.png, no mattes", "inference", "",
    all_of(lambda folder: replace(folder / EVAL.replace(".jpg", ".png"), GOOD["a BMP"]),
           lines("data/eval/info.csv",
               lambda rows: [*rows, LISTED.replace(".jpg", ".png") + ",0"])),
    error_or_works(LISTED[:9]))  # fmt: skip
add("x.jpg and x.png in a folder", "preprocess",
    "--data_dir data/eval/images --limit 99 --matte_dir m",
    all_of(remove("data/eval/info.csv"), duplicate(EVAL, EVAL.replace(".jpg", ".png"))),
    error("suffix"))  # fmt: skip


def held_out(folder):
    rows = (folder / "runs/joint/folds.csv").read_text().split()
    return {row.split(",")[0] for row in rows if row.endswith(",0")}


# ---- mattes: made by the split run of the template, which wants those of `grabcut`

MATTE = f"data/train/mattes/grabcut/{PERSON}/incorrect_mask.png"
SPLIT = "--split_heads --bg none mask=none+grabcut"
NO_MATTES = {
    "an empty matte": lambda path: write(path, b""),
    "garbage for a matte": lambda path: write(path, b"x" * 500),
    "half a matte": lambda path: truncate(path, 0.5),
    "a matte with a flipped byte": lambda path: flip(path, 0.6),
    "a matte of another size": lambda path: write(path, encoded(".png", noise(30, 30, 1))),
    "a folder for a matte": mkdir,
    "a FIFO for a matte": fifo,
}
for name, spoil in NO_MATTES.items():
    expected = error_or_works("incorrect_mask.png")
    may = {"changes": ("data/train/mattes/*",)}
    add(f"{name}, train", "train", SPLIT, spoil(MATTE), expected, **may)
    add(f"{name}, preprocess", "preprocess", "", spoil(MATTE), expected, **may)
    truth = MATTE.replace("data/train/mattes/grabcut", "data/mattes_true/train")
    add(f"{name} of the truth", "preprocess", "--score data/mattes_true/train", spoil(truth),
        error_or_works("incorrect_mask.png"))  # fmt: skip
META = "data/train/mattes/grabcut/meta.json"
for name, data in {"empty": b"", "a list": b"[1]", "a number": b"3", "binary": b"\xff\x00",
                   "null options": b'{"options": null}', "text options": b'{"options": "x"}',
                   "another version": b'{"options": {"version": 99}}'}.items():  # fmt: skip
    add(f"meta.json of the mattes is {name}", "train", SPLIT, write(META, data),
        error("meta.json|mattes made with"))  # fmt: skip
add("meta.json is missing", "train", SPLIT, remove(META), error("mattes", "--overwrite"))
for name, data in {"empty": b"", "a list": b"[1]", "of numbers": b'{"x.jpg": 3}',
                   "of other text": b'{"x.jpg": "y"}'}.items():  # fmt: skip
    add(f"photos.json of the mattes is {name}", "preprocess", "",
        write("data/train/mattes/grabcut/photos.json", data), works("preview.png"))  # fmt: skip
add("a file for the folder of mattes", "train", SPLIT,
    all_of(remove("data/train/mattes"), write("data/train/mattes", b"x")),
    error("mattes"))  # fmt: skip
add("no truth for some", "preprocess", "--score data/mattes_true/train",
    remove(truth), error_or_works("incorrect_mask.png"))  # fmt: skip
add("no truth for any", "preprocess", "--score data/mattes_true/eval", None,
    error("mattes_true/eval"))  # fmt: skip


def story(name, **more):
    def keep(function):
        CASES.append(Case(f"photos: {name}", "photos", story=function, **more))
        return function

    return keep


def mattes_of(box, argv):
    """({name: bytes} of the mattes, complaints) after preprocess."""
    done = box.run("preprocess", f"--bg grabcut --workers 1 {argv}")
    root = box.path("data/train/mattes" if "--matte_dir" not in argv else "shared")
    return {p.name: p.read_bytes() for p in root.rglob("*.png")}, done


@story("a photo replaced by another loses its old silhouette", changes=("data/train/*",))
def replaced(box):
    mattes_of(box, "--data_dir data/train")
    old = box.path(MATTE).read_bytes()
    before = box.path(OTHER).read_bytes()
    replace(box.path(PHOTO), before)
    _, done = mattes_of(box, "--data_dir data/train")
    complaints = error_or_works("incorrect_mask").complaints(done)
    if done.code == 0 and box.path(MATTE).read_bytes() == old:
        complaints.append("the old matte stands for the new photo")
    return complaints


@story("a photo replaced under training and inference", changes=("data/*",))
def replaced_in_training(box):
    from harness.folder import TRAIN

    old = box.path(MATTE).read_bytes()
    replace(box.path(PHOTO), box.path(OTHER).read_bytes())
    done = box.run("train", f"{TRAIN} {SPLIT}")
    complaints = error_or_works("incorrect_mask").complaints(done)
    if done.code == 0 and box.path(MATTE).read_bytes() == old:
        complaints.append("the old matte stands for the new photo")
    return complaints


@story("one --matte_dir for two data sets of equal names")
def mixed(box):
    replace(box.path("one/a.jpg"), box.path(PHOTO).read_bytes())
    replace(box.path("two/a.jpg"), box.path(OTHER).read_bytes())
    first, done = mattes_of(box, "--data_dir one --matte_dir shared")
    complaints = works().complaints(done)
    second, done = mattes_of(box, "--data_dir two --matte_dir shared")
    complaints += error_or_works("a.jpg|shared").complaints(done)
    if done.code == 0 and first["a.png"] == second["a.png"]:
        complaints.append("the second data set has the silhouette of the first")
    return complaints


@story("a photo touched but not changed keeps its matte")
def touched(box):
    mattes_of(box, "--data_dir data/train")
    old = box.path(MATTE).stat().st_mtime_ns
    duplicate(PHOTO, "copy.jpg")(box.folder)
    replace(box.path(PHOTO), box.path("copy.jpg").read_bytes())
    _, done = mattes_of(box, "--data_dir data/train")
    again = box.path(MATTE).stat().st_mtime_ns != old
    return works().complaints(done) + (["made again for nothing"] if again else [])


@story("EXIF turns a photo upright", changes=("data/eval/images/*",))
def turned(box):
    try:
        from PIL import Image
    except ImportError:
        raise Skip("PIL is not installed") from None
    image, out = Image.open(box.path(EVAL)), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(out, "JPEG", exif=exif)
    replace(box.path(EVAL), out.getvalue())
    return works().complaints(box.run("inference", words_of("inference", "")))
