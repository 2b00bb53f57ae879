"""The drawn competition: who is in it, and the files of its layout."""

import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import cv2
import numpy as np

from common.processes import cores, progress
from drawing.backdrop import BACKDROPS, draw_backdrop, render_scale
from drawing.photo import MASKS, draw_photo
from drawing.portrait import draw_portrait
from labels import ATTRIBUTES, encode

PHOTOS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")
GENDERS = ATTRIBUTES["gender"]
SPLITS = ("train", "eval")
# People a cell (male <30, 30-59, 60; female <30, 30-59, 60) in every 60 people, and in the first
# 24 of a split: the competition's shares, and two people at least in every cell.
BLOCK = (11, 10, 2, 17, 18, 2)
FIRST = (4, 4, 2, 6, 6, 2)
PIXELS_A_WORKER = 10**7  # of one photo a person: below this, starting a process costs more
# Second words of the seeds of random streams; those of the people are their split, 0 or 1.
AGES, CELLS, NOISE, ORDER = (2, 3), (4, 5), 6, 7


def draw(out, args):
    """Draws the competition that args, the flags of demo.py, ask for into the folder `out`."""
    train = people(args, 0, args.people)
    evaluation = people(args, 1, args.eval_people)
    mislabel(train, args)
    name_train(train)
    name_eval(evaluation, args.seed)
    everyone = train + evaluation
    work = partial(draw_person, out=out, seed=args.seed, size=tuple(args.size))
    show = partial(progress, total=len(everyone), desc="drawing", unit="person")
    workers = min(cores(), len(everyone) * args.size[0] * args.size[1] // PIXELS_A_WORKER)
    if workers > 1:
        # Spawned, so that no lock or thread of this process is copied half-way.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,))
        try:
            list(show(pool.map(work, everyone, chunksize=2)))
        finally:
            pool.shutdown(cancel_futures=True)
    else:
        list(show(map(work, everyone)))
    write_train(out, train)
    write_eval(out, evaluation, args.seed)


# --- who is drawn ------------------------------------------------------------------------------


def people(args, split, count):
    """A split's people: {"split", "number", "gender", "group", "age", "background"} each.

    split 0 for train, 1 for eval; gender and group (of age) as coded in labels; age in years.
    """
    found = []
    bias = args.background_bias if split == 0 else 0
    for number, cell in enumerate(cells(args.seed, split, count)):
        rng = np.random.default_rng([args.seed, AGES[split], number])
        gender, group = divmod(cell, 3)
        age = draw_age(rng, group)
        background, follows = rng.integers(len(BACKDROPS)), rng.random()
        background = tuple(BACKDROPS)[cell if follows < bias else background]
        found.append({
            "split": split, "number": number, "gender": gender, "group": group, "age": age,
            "background": background,
        })  # fmt: skip
    return found


def cells(seed, split, count):
    """The gender x age cell 0..5 of each of a split's people."""
    rng = np.random.default_rng([seed, CELLS[split]])
    rest = np.subtract(BLOCK, FIRST)
    order = [rng.permutation(np.repeat(np.arange(6), quota)) for quota in (FIRST, rest)]
    while sum(map(len, order)) < count:
        order.append(rng.permutation(np.repeat(np.arange(6), BLOCK)))
    return np.concatenate(order)[:count].tolist()


def draw_age(rng, group):
    """An age of the group: most of the young around 20, most of the middle in their fifties."""
    if group == 0:
        return 18 + min(11, int(rng.exponential(4)))
    return 60 if group == 2 else min(59, 30 + int(30 * rng.beta(2.2, 1.1)))


def mislabel(train, args):
    """Sets each person's "label": (gender, age) as recorded, wrong for a share of the people."""
    rng = np.random.default_rng([args.seed, NOISE])
    wrong = rng.permutation(len(train))[: round(args.label_noise * len(train))]
    for person in train:
        person["label"] = person["gender"], person["age"]
    for rank, index in enumerate(wrong):
        person = train[index]
        if rank % 2:
            group = (person["group"] + rng.integers(1, 3)) % 3
            person["label"] = person["gender"], draw_age(rng, group)
        else:
            person["label"] = 1 - person["gender"], person["age"]


def name_train(train):
    """Sets "id", "path" and "files", with the quirks of the competition's own archive.

    Among 40 people one is `.jpeg`, one `.png`, one mixed with a transparent PNG, and one has the
    id of the person before with a suffix; one id occurs twice.
    """
    suffixes = {5: [".jpeg"] * 7, 9: [".png"] * 7, 13: [".png", ".jpeg"] + [".jpg"] * 5}
    double = next(i for i in range(1, len(train)) if train[i]["label"] != train[i - 1]["label"])
    for index, person in enumerate(train):
        person["id"] = f"{index + 1:06d}"
        if index == double:
            person["id"] = f"{index:06d}"
        elif index % 40 == 17:
            person["id"] = f"{index:06d}-1"
        gender, age = person["label"]
        person["path"] = f"{person['id']}_{GENDERS[gender]}_Asian_{age}"
        kinds = suffixes.get(index % 40, [".jpg"] * 7)
        person["files"] = [photo + kind for photo, kind in zip(PHOTOS, kinds, strict=True)]


def name_eval(evaluation, seed):
    """Sets "path" and "files": eval is one folder of photos whose names tell nothing."""
    for person in evaluation:
        words = [f"{seed} {person['number']} {photo}" for photo in PHOTOS]
        person["path"] = ""
        person["files"] = [hashlib.sha1(word.encode()).hexdigest() + ".jpg" for word in words]


# --- the drawing -------------------------------------------------------------------------------


def draw_person(person, out, seed, size):
    """Draws and writes a person's seven photos and true mattes."""
    key = [seed, person["split"], person["number"]]
    rng = np.random.default_rng(key)
    scale = render_scale(size)[0]
    looks = draw_portrait(rng, person["gender"], person["age"], scale)
    poster = None
    if rng.random() < 0.15:
        poster = draw_portrait(rng, rng.integers(2), rng.integers(18, 61), scale / 2)
    backdrop = draw_backdrop(rng, person["background"], size, poster)
    masks = [*rng.permutation(list(MASKS)), rng.choice(list(MASKS)), None]
    wrongly = rng.choice(["nose", "chin"], p=[0.6, 0.4])
    sun = rng.uniform(0, 2 * np.pi)
    split = SPLITS[person["split"]]
    images = out / split / "images" / person["path"]
    mattes = out / "mattes_true" / split / person["path"]
    for folder in (images, mattes):
        folder.mkdir(parents=True, exist_ok=True)
    for number, (mask, file) in enumerate(zip(masks, person["files"], strict=True)):
        rng = np.random.default_rng([*key, 1 + number])  # 0 would be the stream of the person
        worn = wrongly if PHOTOS[number] == "incorrect_mask" else "right"
        image, matte = draw_photo(rng, looks, backdrop, size, sun, mask=mask, worn=worn)
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        path = images / file
        if path.suffix == ".png" and person["number"] % 40 == 13:
            image = np.dstack([image, np.full(size, 255, np.uint8)])
        write_image(path, image)
        write_image(mattes / f"{path.stem}.png", matte)


def write_image(path, image):
    if path.suffix == ".png":
        options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        options += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]  # fast, for mattes
    else:
        options = [cv2.IMWRITE_JPEG_QUALITY, 92]
    code = cv2.imencode(path.suffix, image, options)[1]
    path.write_bytes(code.tobytes())


# --- the tables --------------------------------------------------------------------------------


def write_table(path, rows):
    lines = [",".join(map(str, row)) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_train(out, train):
    """train.csv with the labels as recorded, truth_train.csv with the true ones, and junk files."""
    rows = [("id", "gender", "race", "age", "path")]
    truth = [("path", "gender", "age", "noisy", "background")]
    for person in train:
        gender, age = person["label"]
        rows.append((person["id"], GENDERS[gender], "Asian", age, person["path"]))
        gender, age = true = person["gender"], person["age"]
        noisy = int(true != person["label"])
        truth.append((person["path"], GENDERS[gender], age, noisy, person["background"]))
    write_table(out / "train" / "train.csv", rows)
    write_table(out / "truth_train.csv", truth)
    images = out / "train" / "images"
    (images / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (images / ".ipynb_checkpoints").mkdir()
    for person in train[::40]:
        (images / person["path"] / "._mask1.jpg").write_bytes(b"\0\5\26\7")
        (images / f"._{person['path']}").write_bytes(b"\0\5\26\7")


def write_eval(out, evaluation, seed):
    """info.csv without the answers, and truth.csv with them, in the same random order."""
    rows = []
    for person in evaluation:
        for number, name in enumerate(person["files"]):
            answer = encode(max(0, number - 4), person["gender"], person["group"])
            rows.append((name, answer, person["number"], person["age"], person["background"]))
    rows = [rows[i] for i in np.random.default_rng([seed, ORDER]).permutation(len(rows))]
    write_table(out / "truth.csv", [("ImageID", "ans", "person", "age", "background"), *rows])
    write_table(out / "eval" / "info.csv", [("ImageID", "ans"), *((row[0], 0) for row in rows)])
