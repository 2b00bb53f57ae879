"""The section of the report on the data: what is in the folder, before any model."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.neighbors import radius_neighbors_graph

from common.errors import UserError
from common.processes import cores, progress
from labels import CLASS_NAMES, CLASSES
from photos.reading import matte_path, read_matte, read_photo
from reporting import figures, page
from reporting.page import SMALL, html

SAMPLES = 4  # photos of each class, each of another person
PEOPLE = 6  # people whose mattes are shown
MATTES = 300  # mattes whose share of the image is measured
PAIRS = 8  # pairs of look-alikes shown
NORMAL = 2  # the mask code of the bare face
METHODS = ("rembg_grabcut", "rembg", "grabcut")  # the best first


# ---- photos and mattes


def survey(root, frame):
    """One pass over all photos: a frame (image, kind, width, height, kilobytes, error, hash), the
    hash (256,) bool of difference_hash() or None.
    """
    with ThreadPoolExecutor(cores()) as pool:
        looks = pool.map(_look, [Path(root, image) for image in frame.image])
        rows = list(progress(looks, total=len(frame), desc="photos", unit="photo"))
    return pd.DataFrame(rows).assign(image=frame.image.to_numpy())


def _look(path):
    row = {"kind": "", "width": 0, "height": 0, "kilobytes": 0.0, "error": "", "hash": None}
    try:
        photo = read_photo(path)
        with Image.open(path) as header:
            row["width"], row["height"] = header.size
            row["kind"] = header.format + (" with alpha" if "A" in header.getbands() else "")
    except (UserError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return row | {"error": str(error).removeprefix(f"{path}: ").splitlines()[0]}
    return row | {"kilobytes": path.stat().st_size / 1024, "hash": difference_hash(photo)}


def difference_hash(photo):
    """(256,) bool: on a 17 x 16 grid, is each cell brighter than its left neighbour? Unmoved by
    brightness, contrast, size and compression.
    """
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    grid = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA)
    return (grid[:, 1:] > grid[:, :-1]).ravel()


def look_alikes(hashes, limit=38, most=200):
    """A frame (a, b, bits) of pairs of people whose hashes differ in at most `limit` of 256 bits,
    nearest first. Unrelated portraits differ in about 100; a recompressed or resized copy in a few.
    """
    people, pairs = sorted(hashes), []
    if len(people) > 1:
        bits = np.array([hashes[person] for person in people], float)
        near = radius_neighbors_graph(bits, limit, mode="distance", metric="sqeuclidean").tocoo()
        found = zip(near.row, near.col, near.data, strict=True)
        pairs = [(people[i], people[j], round(distance)) for i, j, distance in found if i < j]
    frame = pd.DataFrame(pairs, columns=["a", "b", "bits"])
    return frame.sort_values(["bits", "a", "b"], ignore_index=True)[:most]


def matte_methods(matte_dir):
    """Names of the methods that have mattes below `matte_dir`, the best first."""
    found = sorted(folder.name for folder in Path(matte_dir).glob("[!.]*/"))
    return sorted(found, key=(*METHODS, *found).index)


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
    for path in (Path(matte_dir, method, "rejected.csv") for method in methods):
        try:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            frames.append(frame.assign(method=path.parent.name))
        except FileNotFoundError:
            continue
        except ValueError:
            raise UserError(f"{path} is not readable; run preprocess.py again") from None
    return pd.concat(frames, ignore_index=True)


# ---- the section


def build(evidence):
    """Section "Data"."""
    frame = evidence.data.frame
    files, people = survey(evidence.data.root, frame), frame.drop_duplicates("person")
    classes = frame.groupby("label").agg(images=("image", "size"), people=("person", "nunique"))
    classes = classes.reindex(range(CLASSES), fill_value=0).reset_index(names="label")
    evidence.tables["classes"] = classes.assign(name=CLASS_NAMES)
    ages = people.groupby("age").agg(people=("person", "size"), female=("gender", "sum"))
    evidence.tables["ages"] = ages.reset_index()
    intro = (
        f"{len(people):,} people, {len(frame):,} photos. The score is the mean F1 of 18 classes, "
        f"so the rarest, {CLASS_NAMES[classes.people.idxmin()]} ({classes.people.min()} people), "
        "weighs as much as any other."
    )
    blocks = [
        html.notes(evidence.data.notes),
        html.figure(figures.age_histogram(people)),
        html.figure(figures.class_counts(classes)),
        *_files(evidence, files),
        *_look_alikes(evidence, files),
        _faces(evidence),
        _mattes(evidence),
    ]
    return {"title": "Data", "intro": intro, "blocks": blocks}


def _files(evidence, files):
    fine, shape = files.error == "", ["kind", "width", "height"]
    kinds = files[fine].groupby(shape, as_index=False)
    kinds = kinds.agg(images=("image", "size"), mean_kilobytes=("kilobytes", "mean"))
    kinds = kinds.sort_values("images", ascending=False).round().astype({"mean_kilobytes": int})
    broken, none = files.loc[~fine, ["image", "error"]], "Every file can be read."
    yield html.heading("Files")
    yield page.keep(evidence, "files", kinds, "Kinds and sizes in pixels.", limit=12)
    words = "Files that cannot be read."
    yield page.keep(evidence, "unreadable", broken, words, limit=30, empty=none)


def _look_alikes(evidence, files):
    data, items = evidence.data, []
    bare = data.frame.assign(hash=files["hash"])[data.frame["mask"] == NORMAL]
    bare = bare.drop_duplicates("person").set_index("person")
    pairs = look_alikes(bare["hash"].dropna().to_dict())
    ours, theirs = (bare.loc[pairs[side], ["gender", "age"]].to_numpy() for side in "ab")
    pairs["labels_differ"] = np.where((ours != theirs).any(1), "yes", "")
    for pair in pairs.head(PAIRS).itertuples():
        images = [page.photo(data, bare.image[name]) for name in (pair.a, pair.b)]
        title = "labels differ" if pair.labels_differ else "same labels"
        items.append(html.card(images, title, [pair.a, pair.b, f"{pair.bits} of 256 bits differ"]))
    words = "Pairs whose bare-faced photos are nearly the same picture (difference hash)."
    nobody = "No two people share nearly the same bare-faced photo."
    yield html.heading("Near-duplicate people")
    yield page.keep(evidence, "near_duplicates", pairs, words, limit=PAIRS, empty=nobody)
    yield html.cards(items)


def _faces(evidence):
    items = []
    for label, rows in evidence.data.frame.groupby("label"):
        chosen = rows.sample(frac=1, random_state=evidence.seed).drop_duplicates("person")
        images = [page.photo(evidence.data, image) for image in chosen.image[:SAMPLES]]
        lines = [f"{len(rows):,} photos of {len(chosen):,} people"]
        items.append(html.card(images, f"{label}  {CLASS_NAMES[label]}", lines))
    return html.heading("Faces by class") + html.cards(items)


def _mattes(evidence):
    methods, images = matte_methods(evidence.matte_dir), evidence.data.frame
    if not methods:
        words = "There are no mattes yet: python preprocess.py makes them."
        return html.heading("Background removal") + html.text(words)
    images = images.sample(frac=1, random_state=evidence.seed)
    lost, lines, cards = rejected(evidence.matte_dir, methods), [], []
    for method in methods:
        found = [small_matte(evidence.matte_dir, method, image) for image in images.image[:MATTES]]
        shares = pd.Series([np.nan if matte is None else matte.mean() for matte in found])
        line = {"method": method, "photos_with_a_matte": shares.notna().mean()}
        line |= {"mean_person_share": shares.mean(), "rejected": (lost.method == method).sum()}
        lines.append(line)
    for image in images.drop_duplicates("person").image[:PEOPLE]:
        photo = page.small_photo(evidence.data.root / image)
        pictures = [(page.data_uri(photo), image)]
        for method in methods:
            matte = small_matte(evidence.matte_dir, method, image)
            if matte is not None:
                left = np.uint8(photo * matte[..., None])
                pictures.append((page.data_uri(np.uint8(matte * 255)), f"{method}: matte"))
                pictures.append((page.data_uri(left), f"{method}: what stays"))
        cards.append(html.card(pictures, image))
    order = "Photo, then " + ", ".join(f"{method} (matte, what stays)" for method in methods) + "."
    caption = f"Mattes of {len(shares)} photos drawn at random; rejected of all photos."
    none = "No matte was rejected."
    return (
        html.heading("Background removal", order)
        + page.keep(evidence, "mattes", pd.DataFrame(lines), caption)
        + html.cards(cards)
        + page.keep(evidence, "rejected", lost, "Rejected mattes.", limit=20, empty=none)
    )
