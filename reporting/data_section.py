"""The section of the report on the data: what is in the folder, before any model."""

import numpy as np
import pandas as pd

from labels import ATTRIBUTES, CLASS_NAMES, CLASSES
from reporting import figures, page, survey

SAMPLES = 4  # photos of each class, each of another person
PEOPLE = 6  # people whose mattes are shown


def build(tables, data, matte_dir, seed):
    """The Data section. data: a dataset.Table; matte_dir: folder of mattes, may be missing."""
    frame = data.frame
    files, means, hashes = survey.survey(data.root, frame)
    people = frame.drop_duplicates("person")
    intro = (
        f"{len(people):,} people, {len(frame):,} photos. The score is the mean F1 of 18 classes, "
        "so a class of few people weighs as much as one of many."
    )
    blocks = [
        page.notes(data.notes),
        page.figure(figures.age_histogram(people)),
        page.figure(figures.class_counts(np.bincount(frame.label, minlength=CLASSES))),
        _cells(tables, people),
        *_files(tables, files),
        *_look_alikes(tables, data, people, hashes),
        *_faces(tables, data, means, seed),
        *_mattes(tables, data, matte_dir, seed),
    ]
    counts = frame.groupby("label").agg(images=("image", "size"), people=("person", "nunique"))
    counts = counts.reindex(range(CLASSES), fill_value=0).reset_index(names="label")
    counts.insert(1, "name", CLASS_NAMES)
    tables["classes"] = counts
    years = people.groupby("age").agg(people=("person", "size"), female=("gender", "sum"))
    tables["ages"] = years.reset_index()
    return page.section("data", "Data", intro, blocks)


def _cells(tables, people):
    counts = pd.crosstab(people.gender, people.age_group)
    counts = counts.reindex(index=range(2), columns=range(3), fill_value=0)
    counts.columns = list(ATTRIBUTES["age"])
    counts.insert(0, "gender", ATTRIBUTES["gender"])
    counts["all"] = counts[list(ATTRIBUTES["age"])].sum(axis=1)
    return page.keep(tables, "gender_age", counts, "People by gender and age group.")


def _files(tables, files):
    broken = files[files.error != ""][["image", "error"]]
    kinds = files[files.error == ""].groupby(["kind", "width", "height"])
    kinds = kinds.agg(images=("image", "size"), mean_kilobytes=("kilobytes", "mean")).reset_index()
    kinds["mean_kilobytes"] = kinds.mean_kilobytes.round().astype(int)
    kinds = kinds.sort_values("images", ascending=False)
    return [
        page.heading("Files"),
        page.keep(tables, "files", kinds, "Kinds and sizes in pixels.", limit=12),
        page.keep(
            tables,
            "unreadable",
            broken,
            "Files that cannot be read.",
            limit=30,
            empty="Every file can be read.",
        ),
    ]


def _look_alikes(tables, data, people, hashes):
    pairs = survey.look_alikes(hashes)
    rows = people.set_index("person")
    for side in "ab":
        for name in ("gender", "age"):
            pairs[f"{name}_{side}"] = pairs[side].map(rows[name])
        pairs[f"gender_{side}"] = pairs[f"gender_{side}"].map(dict(enumerate(ATTRIBUTES["gender"])))
    differ = (pairs.gender_a != pairs.gender_b) | (pairs.age_a != pairs.age_b)
    pairs["labels_differ"] = differ.map({True: "yes", False: ""})
    normal = data.frame[data.frame["mask"] == survey.NORMAL].drop_duplicates("person")
    photo = normal.set_index("person").image
    items = [
        page.card(
            [(survey.photo_uri(data.root / photo[name]), name) for name in (pair.a, pair.b)],
            "labels differ" if pair.labels_differ else "same labels",
            [pair.a, pair.b, f"{pair.bits} of 256 bits differ"],
            "bad" if pair.labels_differ else "",
        )
        for pair in pairs.head(8).itertuples()
    ]
    words = "Pairs whose bare-faced photos are nearly the same picture (difference hash)."
    nobody = "No two people share nearly the same bare-faced photo."
    return [
        page.heading("Near-duplicate people"),
        page.keep(tables, "near_duplicates", pairs, words, limit=8, empty=nobody),
        page.cards(items),
    ]


def _faces(tables, data, means, seed):
    rng, items = np.random.default_rng(seed), []
    for label, name in enumerate(CLASS_NAMES):
        rows = data.frame[data.frame.label == label]
        if not len(rows):
            continue
        chosen = rows.iloc[rng.permutation(len(rows))].drop_duplicates("person")[:SAMPLES]
        images = [(survey.data_uri(means[label]), f"mean of {name}")]
        images += [(survey.photo_uri(data.root / image), image) for image in chosen.image]
        lines = [f"{len(rows):,} photos of {rows.person.nunique():,} people"]
        items.append(page.card(images, f"{label}  {name}", lines))
    note = "First the mean of all photos of the class, then some photos."
    return [page.heading("Faces by class", note), page.cards(items)]


def _mattes(tables, data, matte_dir, seed):
    methods = survey.matte_methods(matte_dir)
    if not methods:
        words = "There are no mattes yet: python preprocess.py makes them."
        return [page.heading("Background removal"), page.text(words)]
    frame = data.frame
    some = np.random.default_rng(seed).permutation(len(frame))[:300]
    shares = []
    for method in methods:
        mattes = [survey.read_matte(matte_dir, method, image) for image in frame.image.iloc[some]]
        there = [matte.mean() for matte in mattes if matte is not None]
        mean = float(np.mean(there)) if there else float("nan")
        shares.append((method, len(there) / len(mattes), mean))
    lost = survey.rejected(matte_dir, methods)
    counts = lost.method.value_counts()
    table = pd.DataFrame(shares, columns=["method", "photos_with_a_matte", "mean_person_share"])
    table["rejected"] = [int(counts.get(method, 0)) for method in methods]
    rng, items = np.random.default_rng(seed + 1), []
    chosen = rng.permutation(frame.person.unique())[:PEOPLE]
    for person in chosen:
        rows = frame[frame.person == person]
        image = rows.image.iloc[rng.integers(len(rows))]
        photo = survey.small_photo(data.root / image)
        images = [(survey.data_uri(photo), image)]
        for method in methods:
            matte = survey.read_matte(matte_dir, method, image)
            if matte is not None:
                cut = (photo * matte[..., None]).astype(np.uint8)
                images.append((survey.data_uri((matte * 255).astype(np.uint8)), f"{method}: matte"))
                images.append((survey.data_uri(cut), f"{method}: what stays"))
        items.append(page.card(images, image))
    order = "Photo, then " + ", ".join(f"{method} (matte, what stays)" for method in methods) + "."
    caption = f"Mattes of {len(some)} photos drawn at random; rejected of all photos."
    nothing = "No matte was rejected."
    return [
        page.heading("Background removal", order),
        page.keep(tables, "mattes", table, caption),
        page.cards(items),
        page.keep(tables, "rejected", lost, "Rejected mattes.", limit=20, empty=nothing),
    ]
