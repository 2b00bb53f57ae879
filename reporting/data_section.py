"""The section of the report on the data: what is in the folder, before any model."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
from sklearn.neighbors import radius_neighbors_graph

from common.errors import UserError
from common.processes import cores, progress
from labels import CLASS_NAMES, CLASSES
from photos.reading import read_photo
from reporting import figures, page
from reporting.page import html

SAMPLES = 4  # photos of each class, each of another person
PAIRS = 8  # pairs of look-alikes shown
NORMAL = 2  # the mask code of the bare face


def survey(root, frame):
    """One pass over all photos: the frame with the columns error, a text or "", and hash, of
    difference_hash() or None.
    """

    def look(image):
        try:
            return "", difference_hash(read_photo(root / image))
        except UserError as error:
            return str(error).removeprefix(f"{root / image}: "), None

    with ThreadPoolExecutor(cores()) as pool:
        looks = progress(pool.map(look, frame.image), total=len(frame), desc="photos", unit="photo")
        return frame.assign(**pd.DataFrame(looks, frame.index, columns=["error", "hash"]))


def difference_hash(photo):
    """(256,) bool: on a 17 x 16 grid, is each cell brighter than its left neighbour? Unmoved by
    brightness, contrast, size and compression.
    """
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    grid = cv2.resize(grey, (17, 16), interpolation=cv2.INTER_AREA)
    return (grid[:, 1:] > grid[:, :-1]).ravel()


def look_alikes(hashes, limit=38):
    """A frame (a, b, bits) of pairs of people whose hashes, a Series by person, differ in at most
    `limit` of 256 bits, nearest first. Unrelated portraits differ in about 100; a recompressed or
    resized copy in a few.
    """
    pairs, people = [], hashes.index
    if len(people) > 1:
        bits = np.stack(hashes).astype(float)
        near = radius_neighbors_graph(bits, limit, mode="distance", metric="sqeuclidean").tocoo()
        found = zip(near.row, near.col, near.data.round().astype(int), strict=True)
        pairs = [(people[i], people[j], bits) for i, j, bits in found if i < j]
    frame = pd.DataFrame(pairs, columns=["a", "b", "bits"])
    return frame.sort_values(["bits", "a", "b"], ignore_index=True)


def build(evidence):
    """Section "Data"."""
    frame = evidence.data.frame
    files, people = survey(evidence.data.root, frame), frame.drop_duplicates("person")
    classes = frame.groupby("label").agg(images=("image", "size"), people=("person", "nunique"))
    classes = classes.reindex(range(CLASSES), fill_value=0).reset_index(names="label")
    evidence.tables["classes"] = classes.assign(name=CLASS_NAMES)
    intro = (
        f"{len(people):,} people, {len(frame):,} photos. The score is the mean F1 of 18 classes, "
        f"so the rarest, {CLASS_NAMES[classes.people.idxmin()]} ({classes.people.min()} people), "
        "weighs as much as any other."
    )
    broken = files.loc[files.error != "", ["image", "error"]]
    blocks = [
        html.notes(evidence.data.notes),
        page.keep(evidence, "unreadable", broken, "Photos that cannot be read.", limit=30),
        html.figure(*figures.age_histogram(people)),
        _look_alikes(evidence, files),
        _faces(evidence),
    ]
    return {"title": "Data", "intro": intro, "blocks": blocks}


def _look_alikes(evidence, files):
    bare = files[files["mask"] == NORMAL].drop_duplicates("person").set_index("person")
    pairs, items = look_alikes(bare["hash"].dropna()), []
    for a, b, bits in pairs.head(PAIRS).itertuples(index=False):
        images = [page.photo(evidence.data, bare.image[person]) for person in (a, b)]
        items.append(html.card(images, f"{bits} of 256 bits differ", [a, b]))
    words = "Pairs whose bare-faced photos are nearly the same picture (difference hash)."
    table = page.keep(evidence, "near_duplicates", pairs, words, limit=PAIRS)
    return html.heading("Near-duplicate people") + table + html.cards(items)


def _faces(evidence):
    items = []
    for label, rows in evidence.data.frame.groupby("label"):
        chosen = rows.sample(frac=1, random_state=evidence.seed).drop_duplicates("person")
        images = [page.photo(evidence.data, image) for image in chosen.image[:SAMPLES]]
        lines = [f"{len(rows):,} photos of {len(chosen):,} people"]
        items.append(html.card(images, f"{label}  {CLASS_NAMES[label]}", lines))
    return html.heading("Faces by class") + html.cards(items)
