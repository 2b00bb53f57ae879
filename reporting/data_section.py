"""The section of the report on the data: what is in the folder, before any model."""

from labels import CLASS_NAMES, CLASSES
from reporting import figures, page
from reporting.page import html

SAMPLES = 4  # photos of each class, each of another person


def build(evidence):
    """Section "Data"."""
    frame = evidence.data.frame
    people, items = frame.drop_duplicates("person"), []
    classes = frame.groupby("label").agg(images=("image", "size"), people=("person", "nunique"))
    classes = classes.reindex(range(CLASSES), fill_value=0).assign(name=CLASS_NAMES)
    evidence.tables["classes"] = classes.reset_index(names="label")
    rarest = classes.people.idxmin()
    intro = (
        f"{len(people):,} people, {len(frame):,} photos. The score is the mean F1 of 18 classes, "
        f"so the rarest, {CLASS_NAMES[rarest]} ({classes.people[rarest]} people), "
        "weighs as much as any other."
    )
    for label, rows in frame.groupby("label"):
        chosen = rows.sample(frac=1, random_state=evidence.seed).drop_duplicates("person")
        images = [page.photo(evidence.data, image) for image in chosen.image[:SAMPLES]]
        lines = [f"{len(rows):,} photos of {len(chosen):,} people"]
        items.append(html.card(images, f"{label}  {CLASS_NAMES[label]}", lines))
    blocks = [
        html.notes(evidence.data.notes),
        html.figure(*figures.age_histogram(people)),
        html.heading("Photos by class") + html.cards(items),
    ]
    return {"title": "Data", "intro": intro, "blocks": blocks}
