"""The drawn competition: who is in it, and the files of its layout."""

import hashlib
from functools import partial

import cv2
import numpy as np

from drawing.backdrop import BACKDROPS, draw_backdrop, render_scale
from drawing.photo import MASKS, draw_photo
from drawing.portrait import draw_portrait
from labels import ATTRIBUTES, encode
from photos.reading import on_all_cores

PHOTOS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")
GENDERS = ATTRIBUTES["gender"]
# People a cell (male <30, 30-59, 60; female <30, 30-59, 60) in every 60 people, and in the first
# 24 of a split: the competition's shares, and two people at least in every cell.
BLOCK, FIRST = (11, 10, 2, 17, 18, 2), (4, 4, 2, 6, 6, 2)
# Second words of the seeds of random streams; those of the people are their split, 0 or 1.
AGES, CELLS, NOISE, ORDER = (2, 3), (4, 5), 6, 7


def draw(out, args):
    """Draws the competition that args, the flags of demo.py, ask for into the folder `out`."""
    train = people(args, 0, args.people)
    evaluation = people(args, 1, args.eval_people)
    record(train, args)
    for person in evaluation:  # eval is one folder of photos whose names tell nothing
        words = [f"{args.seed} {person['number']} {photo}" for photo in PHOTOS]
        person["path"] = ""
        person["files"] = [f"{hashlib.sha1(word.encode()).hexdigest()}.jpg" for word in words]
    work = partial(draw_person, out=out, seed=args.seed, size=tuple(args.size))
    on_all_cores(work, train + evaluation, "drawing")
    write_train(out, train)
    write_eval(out, evaluation, args.seed)


def people(args, split, count):
    """A split's people: {"split", "number", "gender", "group", "age", "background"} each.

    split 0 for train, 1 for eval; gender and group (of age) as coded in labels; age in years.
    """
    found = []
    bias = args.background_bias if split == 0 else 0
    rng = np.random.default_rng([args.seed, CELLS[split]])
    quotas = [FIRST, np.subtract(BLOCK, FIRST), *[BLOCK] * (count // 60)]
    cells = [rng.permutation(np.repeat(np.arange(6), quota)) for quota in quotas]
    for number, cell in enumerate(np.concatenate(cells)[:count].tolist()):
        rng = np.random.default_rng([args.seed, AGES[split], number])
        gender, group = divmod(cell, 3)
        age, background = draw_age(rng, group), rng.choice(list(BACKDROPS))
        if rng.random() < bias:
            background = list(BACKDROPS)[cell]
        person = {"split": split, "number": number, "background": background}
        found.append(person | {"gender": gender, "group": group, "age": age})
    return found


def draw_age(rng, group):
    """An age of the group: most of the young around 20, most of the middle in their fifties."""
    if group == 0:
        return 18 + min(11, int(rng.exponential(4)))
    return 60 if group == 2 else min(59, 30 + int(30 * rng.beta(2.2, 1.1)))


def record(train, args):
    """Sets each person's "label", (gender, age) as recorded, and "id", "path" and "files".

    Labels are wrong for a share of the people. As in the competition's own archive, among 40 people
    one is `.jpeg`, one `.png`, one mixed with a transparent PNG, and one has the id of the person
    before with a suffix; one id occurs twice.
    """
    rng = np.random.default_rng([args.seed, NOISE])
    wrong = rng.permutation(len(train))[: round(args.label_noise * len(train))]
    suffixes = {5: [".jpeg"] * 7, 9: [".png"] * 7, 13: [".png", ".jpeg"] + [".jpg"] * 5}
    twice = False
    for index, person in enumerate(train):
        gender, age = person["gender"], person["age"]
        if index in wrong[::2]:
            gender = 1 - gender
        elif index in wrong:
            age = draw_age(rng, (person["group"] + rng.integers(1, 3)) % 3)
        person["label"], person["id"] = (gender, age), f"{index + 1:06d}"
        if index and not twice and person["label"] != train[index - 1]["label"]:
            twice, person["id"] = True, f"{index:06d}"
        elif index % 40 == 17:
            person["id"] = f"{index:06d}-1"
        person["path"] = f"{person['id']}_{GENDERS[gender]}_Asian_{age}"
        kinds = suffixes.get(index % 40, [".jpg"] * 7)
        person["files"] = [photo + kind for photo, kind in zip(PHOTOS, kinds, strict=True)]


def draw_person(person, out, seed, size):
    """Draws and writes a person's seven photos and true mattes."""
    key, name = [seed, person["split"], person["number"]], ("train", "eval")[person["split"]]
    rng, scale = np.random.default_rng(key), render_scale(size)[0]
    portrait = draw_portrait(rng, person["gender"], person["age"], scale)
    backdrop = draw_backdrop(rng, person["background"], size)
    masks = [*rng.choice(list(MASKS), 6, p=[0.4, 0.4, 0.2]), None]
    wrongly, sun = rng.choice(["nose", "chin"], p=[0.6, 0.4]), rng.uniform(0, 2 * np.pi)
    images = out / name / "images" / person["path"]
    mattes = out / "mattes_true" / name / person["path"]
    for folder in (images, mattes):
        folder.mkdir(parents=True, exist_ok=True)
    for number, (mask, file) in enumerate(zip(masks, person["files"], strict=True)):
        rng = np.random.default_rng([*key, 1 + number])  # 0 would be the stream of the person
        worn = wrongly if PHOTOS[number] == "incorrect_mask" else "right"
        image, matte = draw_photo(rng, portrait, backdrop, size, sun, mask=mask, worn=worn)
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if file.endswith(".png") and person["number"] % 40 == 13:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
        write_image(images / file, image)
        write_image(mattes / f"{file.rpartition('.')[0]}.png", matte)


def write_image(path, image):
    fast = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    coded = cv2.imencode(path.suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 92, *fast])[1]
    path.write_bytes(coded)  # a full disk is an error


def write_table(path, header, rows):
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_train(out, train):
    """train.csv with the labels as recorded, truth_train.csv with the true ones, and junk files."""
    rows, truth, images = [], [], out / "train" / "images"
    for person in train:
        gender, age = person["label"]
        rows.append((person["id"], GENDERS[gender], "Asian", age, person["path"]))
        gender, age = true = person["gender"], person["age"]
        noisy = int(true != person["label"])
        truth.append((person["path"], GENDERS[gender], age, noisy, person["background"]))
    write_table(out / "train" / "train.csv", "id,gender,race,age,path", rows)
    write_table(out / "truth_train.csv", "path,gender,age,noisy,background", truth)
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
    write_table(out / "truth.csv", "ImageID,ans,person,age,background", rows)
    write_table(out / "eval" / "info.csv", "ImageID,ans", [(row[0], 0) for row in rows])
