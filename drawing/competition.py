"""The drawn competition: who is in it, and the files of its layout."""

import contextlib
import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from common.processes import cores, progress
from drawing import portrait, scene

PHOTOS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")
GENDERS = ("male", "female")
# People a cell (male <30, 30-59, 60; female <30, 30-59, 60) in every 60 people, and in the first
# 24 of a split: the competition's shares, and two people at least in every cell.
BLOCK = (11, 10, 2, 17, 18, 2)
FIRST = (4, 4, 2, 6, 6, 2)
PIXELS_A_WORKER = 10**7  # of one photo a person: below this, starting a process costs more
# Second words of the seeds of random streams; those of the people are their split, 0 or 1.
AGES, CELLS, NOISE, ORDER = (2, 3), (4, 5), 6, 7


def draw(out, args):
    train = people(args, 0, args.people)
    evaluation = people(args, 1, args.eval_people)
    mislabel(train, args)
    name_folders(train)
    for person in evaluation:
        number = person["number"]
        person["files"] = [
            hashlib.sha1(f"{args.seed} {number} {photo}".encode()).hexdigest() for photo in PHOTOS
        ]
    everyone = train + evaluation
    work = partial(draw_person, out=out, seed=args.seed, size=tuple(args.size))
    workers = min(cores(), len(everyone) * args.size[0] * args.size[1] // PIXELS_A_WORKER)
    with contextlib.ExitStack() as stack:
        if workers > 1:
            # Spawned, so that no lock or thread of this process is copied half-way.
            pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), one_thread)
            stack.callback(pool.shutdown, cancel_futures=True)
            done = pool.map(work, everyone, chunksize=2)
        else:
            done = map(work, everyone)
        for _ in progress(done, total=len(everyone), desc="drawing", unit="person"):
            pass
    write_train(out, train)
    write_eval(out, evaluation, args.seed)


def one_thread():
    cv2.setNumThreads(1)


# --- who is drawn ------------------------------------------------------------------------------


def people(args, split, count):
    """A split's people: {"split", "number", "gender", "group", "age", "background"} each."""
    found = []
    biased = args.background_bias if split == 0 else 0
    for number, cell in enumerate(cells(args.seed, split, count)):
        rng = np.random.default_rng([args.seed, AGES[split], number])
        gender, group = divmod(cell, 3)
        age = draw_age(rng, group)
        kind, follows = scene.BACKDROPS[rng.integers(len(scene.BACKDROPS))], rng.random()
        found.append({
            "split": split, "number": number, "gender": gender, "group": group, "age": age,
            "background": scene.BACKDROPS[cell] if follows < biased else kind,
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


def name_folders(train):
    """Sets "id", "path" and "files", with the quirks of the competition's own archive.

    Among 40 people one is `.jpeg`, one `.png`, one mixed with a transparent PNG, and one has the
    id of the person before with a suffix; one id occurs twice.
    """
    twin = next(i for i in range(1, len(train)) if train[i]["label"] != train[i - 1]["label"])
    for index, person in enumerate(train):
        before = f"{index:06d}"
        person["id"] = f"{index + 1:06d}"
        if index == twin:
            person["id"] = before
        elif index % 40 == 17:
            person["id"] = f"{before}-1"
        gender, age = person["label"]
        person["path"] = f"{person['id']}_{GENDERS[gender]}_Asian_{age}"
        kinds = {5: [".jpeg"] * 7, 9: [".png"] * 7, 13: [".png", ".jpeg"] + [".jpg"] * 5}
        kinds = kinds.get(index % 40, [".jpg"] * 7)
        person["files"] = [photo + kind for photo, kind in zip(PHOTOS, kinds, strict=True)]


# --- the drawing -------------------------------------------------------------------------------


def draw_person(person, out, seed, size):
    """Draws and writes a person's seven photos and true mattes."""
    key = [seed, person["split"], person["number"]]
    rng = np.random.default_rng(key)
    scale = scene.render_scale(size)[0]
    looks = portrait.draw_person(rng, person["gender"], person["age"], scale)
    poster = None
    if rng.random() < 0.15:
        poster = portrait.draw_person(rng, rng.integers(2), rng.integers(18, 61), scale / 2)
    backdrop = scene.draw_backdrop(rng, person["background"], size, poster)
    masks = [*rng.permutation(scene.MASKS), rng.choice(scene.MASKS), None]
    worn = rng.choice(["nose", "chin"], p=[0.6, 0.4])
    sun = rng.uniform(0, 2 * np.pi)
    images, mattes = place_folders(out, person)
    for number, (mask, file) in enumerate(zip(masks, person["files"], strict=True)):
        rng = np.random.default_rng([*key, 1 + number])  # 0 would be the stream of the person
        how = worn if PHOTOS[number] == "incorrect_mask" else "right"
        image, matte = scene.draw_photo(rng, looks, backdrop, mask, how, size, sun)
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        name = Path(file if person["split"] == 0 else f"{file}.jpg")
        if name.suffix == ".png" and person["number"] % 40 == 13:
            image = np.dstack([image, np.full(size, 255, np.uint8)])
        write_image(images / name, image)
        write_image(mattes / f"{name.stem}.png", matte)


def place_folders(out, person):
    """The folders of a person's photos and mattes, made if missing."""
    if person["split"] == 0:
        folders = (
            out / "train" / "images" / person["path"],
            out / "mattes_true" / "train" / person["path"],
        )
    else:
        folders = out / "eval" / "images", out / "mattes_true" / "eval"
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return folders


def write_image(path, image):
    if path.suffix == ".png":
        options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        options += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]  # fast, for mattes
    else:
        options = [cv2.IMWRITE_JPEG_QUALITY, 92]
    code = cv2.imencode(path.suffix, image, options)[1]
    path.write_bytes(code.tobytes())


# --- the tables --------------------------------------------------------------------------------


def write_table(path, head, rows):
    lines = [",".join(str(cell) for cell in row) for row in [head, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_train(out, train):
    rows, truth = [], []
    for person in train:
        gender, age = person["label"]
        rows.append((person["id"], GENDERS[gender], "Asian", age, person["path"]))
        true = person["gender"], person["age"]
        noisy = int(true != person["label"])
        truth.append((person["path"], GENDERS[true[0]], true[1], noisy, person["background"]))
    write_table(out / "train" / "train.csv", ("id", "gender", "race", "age", "path"), rows)
    head = ("path", "gender", "age", "noisy", "background")
    write_table(out / "truth_train.csv", head, truth)
    images = out / "train" / "images"
    (images / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (images / ".ipynb_checkpoints").mkdir()
    for person in train[::40]:
        (images / person["path"] / "._mask1.jpg").write_bytes(b"\0\5\26\7")
        (images / f"._{person['path']}").write_bytes(b"\0\5\26\7")


def write_eval(out, evaluation, seed):
    rows = []
    for person in evaluation:
        for number, name in enumerate(person["files"]):
            mask = max(0, number - 4)
            answer = 6 * mask + 3 * person["gender"] + person["group"]
            rows.append(
                (f"{name}.jpg", answer, person["number"], person["age"], person["background"])
            )
    rows = [rows[i] for i in np.random.default_rng([seed, ORDER]).permutation(len(rows))]
    write_table(out / "truth.csv", ("ImageID", "ans", "person", "age", "background"), rows)
    blank = [(row[0], 0) for row in rows]
    write_table(out / "eval" / "info.csv", ("ImageID", "ans"), blank)
