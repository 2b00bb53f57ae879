"""The drawn competition: who is in it, and the files of its layout."""

import hashlib
from functools import partial

import cv2
import numpy as np

from drawing.backdrop import BACKDROPS, draw_backdrop
from drawing.portrait import MASKS, draw_mask, draw_portrait, identity
from drawing.sketch import Sketch, over
from labels import ATTRIBUTES, encode
from photos.reading import on_all_cores

PHOTOS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")
GENDERS = ATTRIBUTES["gender"]
# People a cell (male <30, 30-59, 60; female <30, 30-59, 60) in every 60 people, and in the first
# 24 of a split: the competition's shares, and two people at least in every cell.
BLOCK, FIRST = (11, 10, 2, 17, 18, 2), (4, 4, 2, 6, 6, 2)
# Second words of the seeds of random streams; those of the people are their split, 0 or 1.
AGES, CELLS, NOISE, ORDER = (2, 3), (4, 5), 6, 7
write_table = partial(np.savetxt, fmt="%s", delimiter=",", comments="")


def draw(out, args):
    """Draws the competition that args, the flags of demo.py, ask for into the folder `out`."""
    train, evaluation = people(args, 0, args.people), people(args, 1, args.eval_people)
    write_train(out / "train", train, args)
    write_eval(out, evaluation, args.seed)
    work = partial(draw_person, out=out, seed=args.seed, size=tuple(args.size))
    on_all_cores(work, train + evaluation, "drawing")


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


def write_train(folder, train, args):
    """Sets "path" and "files" of each person; writes all but the photos, with the quirks below.

    Labels are wrong for a share of the people. As in the competition's own archive, of 40 people
    one is `.jpeg`, one `.png`, one mixed with a transparent PNG, one has the id of the person
    before with a suffix, and one brings junk files; one id occurs twice.
    """
    rng = np.random.default_rng([args.seed, NOISE])
    wrong = rng.permutation(len(train))[: round(args.label_noise * len(train))]
    suffixes = {5: [".jpeg"] * 7, 9: [".png"] * 7, 13: [".png", ".jpeg"] + [".jpg"] * 5}
    rows, truth, twice = [], [], False
    for index, person in enumerate(train):
        gender, age = true = person["gender"], person["age"]
        if index in wrong[::2]:
            gender = 1 - gender
        elif index in wrong:
            age = draw_age(rng, (person["group"] + rng.integers(1, 3)) % 3)
        label, name = (GENDERS[gender], "Asian", age), f"{index + 1:06d}"
        if rows and not twice and rows[-1][1:4] != label:
            twice, name = True, rows[-1][0]
        elif index % 40 == 17:
            name = f"{index:06d}-1"
        path = "_".join(map(str, (name, *label)))
        rows.append((name, *label, path))
        noisy = int(true != (gender, age))
        truth.append((path, GENDERS[true[0]], true[1], noisy, person["background"]))
        kinds = suffixes.get(index % 40, [".jpg"] * 7)
        files = [photo + kind for photo, kind in zip(PHOTOS, kinds, strict=True)]
        person |= {"path": path, "files": files}
    (folder / "images/.ipynb_checkpoints").mkdir(parents=True)
    write_table(folder / "train.csv", rows, header="id,gender,race,age,path")
    truths = folder.parent / "truth_train.csv"
    write_table(truths, truth, header="path,gender,age,noisy,background")
    (folder / "images/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    for person in train[::40]:
        (folder / "images" / person["path"]).mkdir()
        (folder / "images" / person["path"] / "._mask1.jpg").write_bytes(b"\0\5\26\7")
        (folder / "images" / f"._{person['path']}").write_bytes(b"\0\5\26\7")


def write_eval(out, evaluation, seed):
    """Sets "path" and "files" of each person; writes info.csv, and truth.csv with the answers.

    All photos lie in one folder, their names tell nothing, and both tables are in random order.
    """
    rows = []
    for person in evaluation:
        words = [f"{seed} {person['number']} {photo}" for photo in PHOTOS]
        files = [f"{hashlib.sha1(word.encode()).hexdigest()}.jpg" for word in words]
        person |= {"path": "", "files": files}
        for number, name in enumerate(files):
            answer = encode(max(0, number - 4), person["gender"], person["group"])
            rows.append((name, answer, person["number"], person["age"], person["background"]))
    rows = np.random.default_rng([seed, ORDER]).permutation(np.array(rows, object))
    (out / "eval").mkdir()
    write_table(out / "truth.csv", rows, header="ImageID,ans,person,age,background")
    write_table(out / "eval/info.csv", [(row[0], 0) for row in rows], header="ImageID,ans")


def draw_person(person, out, seed, size):
    """Draws and writes a person's seven photos and true mattes."""
    key, split = [seed, person["split"], person["number"]], ("train", "eval")[person["split"]]
    rng = np.random.default_rng(key)
    who = identity(rng, person["gender"], person["age"])
    backdrop = draw_backdrop(rng, person["background"], size)
    masks = rng.choice(list(MASKS), 6, p=[0.4, 0.4, 0.2])
    worn = ["right"] * 5 + [rng.choice(["nose", "chin"], p=[0.6, 0.4])]
    images = out / split / "images" / person["path"]
    mattes = out / "mattes_true" / split / person["path"]
    for folder in (images, mattes):
        folder.mkdir(parents=True, exist_ok=True)
    photos = zip(person["files"], [*masks, None], [*worn, None], strict=True)
    for number, (file, *mask) in enumerate(photos):
        rng = np.random.default_rng([*key, 1 + number])  # 0 would be the stream of the person
        image, matte = draw_photo(rng, who, backdrop, size, mask)
        transparent = file.endswith(".png") and person["number"] % 40 == 13
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGRA if transparent else cv2.COLOR_RGB2BGR)
        for path, pixels in [(images / file, image), ((mattes / file).with_suffix(".png"), matte)]:
            path.write_bytes(cv2.imencode(path.suffix, pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])[1])


def draw_photo(rng, who, backdrop, size, mask):
    """One photo of a person: ((H, W, 3) uint8 RGB, (H, W) uint8 matte, 255 on the person).

    who of identity, backdrop of draw_backdrop; mask: (one of MASKS, one of WORN), or two None for
    a bare face. The draws of rng do not depend on the backdrop.
    """
    scale, (height, width) = size[0] / 512, size
    zoom, roll = 1.1 * np.exp(rng.normal(0, 0.05)) * scale, rng.normal(0, 0.05)
    turn = zoom * np.array([(np.cos(roll), -np.sin(roll)), (np.sin(roll), np.cos(roll))])
    middle = (width / 2, 226 * scale) + rng.normal(0, (13, 10)) * scale
    sketch = Sketch(size, np.column_stack([turn * (who.half, who.half * who.tall), middle]))
    draw_portrait(sketch, who)
    if mask[0]:
        draw_mask(rng, sketch, who, *mask)
    top, left = rng.integers(0, np.subtract(backdrop.shape[:2], size) + 1)
    behind = cv2.cvtColor(backdrop[top : top + height, left : left + width], cv2.COLOR_RGB2RGBA)
    image = cv2.cvtColor(over(behind, sketch.pixels), cv2.COLOR_RGBA2RGB)
    image = cv2.convertScaleAbs(image, alpha=np.exp(rng.normal(0, 0.15)))
    image = cv2.GaussianBlur(image, (3, 3), max(0.2, rng.uniform(0, 0.9) * scale))
    noise, share = rng.integers(0, 256, image.shape, np.uint8), rng.uniform(0.02, 0.09)
    image = cv2.addWeighted(image, 1, noise, share, -128 * share)
    return image, cv2.extractChannel(sketch.pixels, 3)
