"""The section of the report on the data: what is in the folder, before any model."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from common.errors import UserError
from common.processes import cores, progress
from labels import ATTRIBUTES, CLASS_NAMES, CLASSES
from photos.reading import matte_path, read_matte
from reporting import figures, page
from reporting.page import SMALL, html

SAMPLES = 4  # photos of each class, each of another person
PEOPLE = 6  # people whose mattes are shown
MATTES = 300  # mattes whose share of the image is measured
PAIRS = 8  # pairs of look-alikes shown
NORMAL = 2  # the mask code of the bare face
METHODS = ("rembg_grabcut", "rembg", "grabcut")  # the best first
REDUCED = {k: getattr(cv2, f"IMREAD_REDUCED_COLOR_{k}") for k in (8, 4, 2)} | {1: cv2.IMREAD_COLOR}


# ---- photos and mattes


def survey(root, frame):
    """One pass over all photos, at the smallest size that the decoder gives for little work.

    Returns (files, means, hashes): files, a frame (image, kind, width, height, kilobytes, error),
    one row an image; means (18, 128, 96, 3) uint8 RGB, zero for an absent class; hashes
    {person: (256,) bool} difference hashes of the bare-faced photos.
    """
    sums, counts = np.zeros((CLASSES, *SMALL[::-1], 3)), np.zeros((CLASSES, 1, 1, 1))
    files, hashes = [], {}
    with ThreadPoolExecutor(cores()) as pool:
        looks = pool.map(_look, [Path(root, image) for image in frame.image])
        rows = progress(frame.itertuples(), total=len(frame), desc="photos", unit="photo")
        for row, (file, small) in zip(rows, looks, strict=True):
            files.append({"image": row.image} | file)
            if small is not None:
                sums[row.label] += small
                counts[row.label] += 1
                if row.mask == NORMAL:
                    hashes[row.person] = difference_hash(small)
    means = (sums / np.maximum(counts, 1)).round().astype(np.uint8)
    return pd.DataFrame(files), means, hashes


def _look(path):
    """(row of the file table, (128, 96, 3) RGB uint8 or None if it cannot be read)."""
    row = {"kind": "", "width": 0, "height": 0, "kilobytes": 0.0, "error": ""}
    try:
        data = path.read_bytes()
        row["kilobytes"] = round(len(data) / 1024, 1)
        with Image.open(io.BytesIO(data)) as header:
            row["width"], row["height"] = header.size
            row["kind"] = header.format + (" with alpha" if "A" in header.getbands() else "")
        least = min(row["width"] / SMALL[0], row["height"] / SMALL[1])
        factor = next((factor for factor in REDUCED if factor <= least), 1)
        photo = cv2.imdecode(np.frombuffer(data, np.uint8), REDUCED[factor])
    except (OSError, ValueError, SyntaxError, cv2.error, Image.DecompressionBombError) as error:
        reason = str(error).partition(" <")[0] or type(error).__name__  # no addresses of objects
        return row | {"error": reason.splitlines()[0][:120]}, None
    if photo is None:
        return row | {"error": "cannot be decoded"}, None
    photo = cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)
    return row, cv2.resize(photo, SMALL, interpolation=cv2.INTER_AREA)


def difference_hash(photo):
    """(256,) bool: on a 17 x 16 grid, is each cell brighter than its left neighbour? Unmoved by
    brightness, contrast, size and compression.
    """
    grid = cv2.resize(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), (17, 16), cv2.INTER_AREA)
    return (grid[:, 1:] > grid[:, :-1]).ravel()


def look_alikes(hashes, limit=38, most=200):
    """Pairs of people whose bare-faced photos are nearly the same picture: a frame (a, b, bits),
    nearest first, of pairs that differ in at most `limit` of 256 bits.

    Unrelated portraits differ in about 100 bits; a recompressed or resized copy in a few.
    """
    people = sorted(hashes)
    signs = np.array([hashes[person] for person in people], np.float32) * 2 - 1
    pairs = []
    for start in range(0, len(people), 1024):
        bits = (256 - signs[start : start + 1024] @ signs.T) / 2
        near = np.argwhere(bits <= limit)
        pairs += [(people[i + start], people[j], int(bits[i, j])) for i, j in near if i + start < j]
    frame = pd.DataFrame(pairs, columns=["a", "b", "bits"])
    return frame.sort_values("bits", kind="stable", ignore_index=True)[:most]


def matte_methods(matte_dir):
    """Names of the methods that have mattes below `matte_dir`, the best first."""
    found = sorted(folder.name for folder in Path(matte_dir).glob("[!.]*/"))
    order = (*METHODS, *found)
    return sorted(found, key=order.index)


def small_matte(matte_dir, method, image):
    """(128, 96) float32 foreground 0..1, or None where there is none."""
    try:
        matte = read_matte(matte_path(matte_dir, method, image))
    except UserError:
        return None
    return cv2.resize(matte, SMALL, interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def rejected(matte_dir, methods):
    """One frame of all rejected.csv, with the method in front; empty if there is none."""
    frames = [pd.DataFrame(columns=["method"])]
    for method in methods:
        path = Path(matte_dir, method, "rejected.csv")
        if path.is_file():
            try:
                frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError):
                raise UserError(f"{path} is not readable; run preprocess.py again") from None
            frames.append(frame.assign(method=method))
    return pd.concat(frames, ignore_index=True)


# ---- the section


def headline(evidence):
    """The headline of a page without runs, as comparison.headline."""
    frame = evidence.data.frame
    counts = frame.groupby("label").person.nunique().reindex(range(CLASSES), fill_value=0)
    main = (
        f"{frame.person.nunique():,} people, {len(frame):,} photos; the rarest class, "
        f"{CLASS_NAMES[counts.idxmin()]}, has {counts.min():,} people"
    )
    note = "Give runs of train.py (--model_dir) to see which is better, and by how much."
    return {"main": main, "points": [], "notes": [note]}


def build(evidence):
    """Section "Data"."""
    frame = evidence.data.frame
    files, means, hashes = survey(evidence.data.root, frame)
    people = frame.drop_duplicates("person")
    classes = frame.groupby("label").agg(images=("image", "size"), people=("person", "nunique"))
    classes = classes.reindex(range(CLASSES), fill_value=0).reset_index(names="label")
    classes.insert(1, "name", CLASS_NAMES)
    ages = people.groupby("age").agg(people=("person", "size"), female=("gender", "sum"))
    evidence.tables |= {"classes": classes, "ages": ages.reset_index()}
    intro = (
        f"{len(people):,} people, {len(frame):,} photos. The score is the mean F1 of 18 classes, "
        "so a class of few people weighs as much as one of many."
    )
    blocks = [
        html.notes(evidence.data.notes),
        html.figure(figures.age_histogram(people)),
        html.figure(figures.class_counts(classes.images)),
        _cells(evidence, people),
        _files(evidence, files),
        _look_alikes(evidence, people, look_alikes(hashes)),
        _faces(evidence, means),
        _mattes(evidence),
    ]
    return page.section("data", "Data", intro, blocks)


def _cells(evidence, people):
    counts = pd.crosstab(people.gender, people.age_group)
    counts = counts.reindex(index=range(2), columns=range(3), fill_value=0)
    counts.columns = ATTRIBUTES["age"]
    counts["all"] = counts.sum(axis=1)
    counts.insert(0, "gender", ATTRIBUTES["gender"])
    return page.keep(evidence, "gender_age", counts, "People by gender and age group.")


def _files(evidence, files):
    fine = files.error == ""
    kinds = files[fine].groupby(["kind", "width", "height"], as_index=False)
    kinds = kinds.agg(images=("image", "size"), mean_kilobytes=("kilobytes", "mean"))
    kinds = kinds.round().astype({"mean_kilobytes": int}).sort_values("images", ascending=False)
    broken, readable = files.loc[~fine, ["image", "error"]], "Every file can be read."
    words = "Files that cannot be read."
    return (
        html.heading("Files")
        + page.keep(evidence, "files", kinds, "Kinds and sizes in pixels.", limit=12)
        + page.keep(evidence, "unreadable", broken, words, limit=30, empty=readable)
    )


def _look_alikes(evidence, people, pairs):
    """pairs: of look_alikes."""
    genders = people.gender.map(dict(enumerate(ATTRIBUTES["gender"])))
    known = people.assign(gender=genders).set_index("person")[["gender", "age"]]
    for side in "ab":
        pairs = pairs.join(known.add_suffix(f"_{side}"), on=side)
    differ = (pairs.gender_a != pairs.gender_b) | (pairs.age_a != pairs.age_b)
    pairs["labels_differ"] = np.where(differ, "yes", "")
    frame = evidence.data.frame
    bare = frame[frame["mask"] == NORMAL].drop_duplicates("person").set_index("person").image
    items = []
    for pair in pairs.head(PAIRS).itertuples():
        images = [(page.photo(evidence.data, bare[name])[0], name) for name in (pair.a, pair.b)]
        title, flag = ("labels differ", "bad") if pair.labels_differ else ("same labels", "")
        lines = [pair.a, pair.b, f"{pair.bits} of 256 bits differ"]
        items.append(html.card(images, title, lines, flag))
    words = "Pairs whose bare-faced photos are nearly the same picture (difference hash)."
    nobody = "No two people share nearly the same bare-faced photo."
    table = page.keep(evidence, "near_duplicates", pairs, words, limit=PAIRS, empty=nobody)
    return html.heading("Near-duplicate people") + table + html.cards(items)


def _faces(evidence, means):
    rng, items = np.random.default_rng(evidence.seed), []
    for label, rows in evidence.data.frame.groupby("label"):
        name = CLASS_NAMES[label]
        chosen = rows.iloc[rng.permutation(len(rows))].drop_duplicates("person")[:SAMPLES]
        images = [(page.data_uri(means[label]), f"mean of {name}")]
        images += [page.photo(evidence.data, image) for image in chosen.image]
        lines = [f"{len(rows):,} photos of {rows.person.nunique():,} people"]
        items.append(html.card(images, f"{label}  {name}", lines))
    note = "First the mean of all photos of the class, then some photos."
    return html.heading("Faces by class", note) + html.cards(items)


def _mattes(evidence):
    methods, frame = matte_methods(evidence.matte_dir), evidence.data.frame
    if not methods:
        words = "There are no mattes yet: python preprocess.py makes them."
        return html.heading("Background removal") + html.text(words)
    lost = rejected(evidence.matte_dir, methods)
    chosen = np.random.default_rng(evidence.seed).permutation(len(frame))[:MATTES]
    lines = []
    for method in methods:
        mattes = [
            small_matte(evidence.matte_dir, method, image) for image in frame.image.iloc[chosen]
        ]
        shares = pd.Series([np.nan if matte is None else matte.mean() for matte in mattes])
        lines.append((method, shares.notna().mean(), shares.mean(), (lost.method == method).sum()))
    columns = ["method", "photos_with_a_matte", "mean_person_share", "rejected"]
    shares = pd.DataFrame(lines, columns=columns)
    order = "Photo, then " + ", ".join(f"{method} (matte, what stays)" for method in methods) + "."
    caption = f"Mattes of {len(chosen)} photos drawn at random; rejected of all photos."
    none = "No matte was rejected."
    return (
        html.heading("Background removal", order)
        + page.keep(evidence, "mattes", shares, caption)
        + html.cards(_matte_cards(evidence, methods))
        + page.keep(evidence, "rejected", lost, "Rejected mattes.", limit=20, empty=none)
    )


def _matte_cards(evidence, methods):
    """A photo of each of some people, its mattes, and what they leave of it."""
    rng, frame, items = np.random.default_rng(evidence.seed + 1), evidence.data.frame, []
    for person in rng.permutation(frame.person.unique())[:PEOPLE]:
        rows = frame[frame.person == person]
        image = rows.image.iloc[rng.integers(len(rows))]
        photo = page.small_photo(evidence.data.root / image)
        images = [(page.data_uri(photo), image)]
        for method in methods:
            matte = small_matte(evidence.matte_dir, method, image)
            if matte is not None:
                parts = {"matte": matte * 255, "what stays": photo * matte[..., None]}
                images += [
                    (page.data_uri(part.astype(np.uint8)), f"{method}: {name}")
                    for name, part in parts.items()
                ]
        items.append(html.card(images, image))
    return items
