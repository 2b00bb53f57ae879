"""Labels that look wrong, after confident learning (Northcutt et al. 2021), and their review."""

from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from scipy.special import logsumexp, softmax

from experiment.run_folder import fingerprint
from labels import ATTRIBUTES, OLD_FROM, marginals
from reporting import page
from reporting.page import html

COLUMNS = ["id", "field", "from", "to", "confidence", "note"]  # those of label_fixes.csv
FACTORS = np.geomspace(0.05, 10, 107)
REVIEWED = 40


def rank(rows, probs, old_from=OLD_FROM):
    """Labels than which another is likelier, the surest first: a frame with COLUMNS; `id` is the
    person's folder, `confidence` the probability of `to` against all other values.

    rows: frame (image, person, age, mask, gender, age_group), one row an image; probs: list of
    (N, 18) out-of-fold probabilities, of which the mean of the logs counts; old_from: a model that
    was taught that people are old from this age on does not contradict their label by it. The
    photos of a person vote on gender and age group; the mask state belongs to a photo. Each value's
    probability is divided by its mean over the images that carry it, the threshold of confident
    learning: a model that is shy of a rare class does not thereby call its members wrong. Then the
    votes of an attribute are tempered (Guo et al. 2017, arXiv:1706.04599): where models err often,
    their word counts less.
    """
    every = [marginals(run) for run in probs]
    frames = [_disagreement(rows, name, [one[name] for one in every]) for name in ATTRIBUTES]
    found = pd.concat(frames).sort_values("confidence", ascending=False, kind="stable")
    ages = found.id.map(rows.drop_duplicates("person").set_index("person").age)
    moved = ages.between(*sorted((old_from, OLD_FROM)), inclusive="left")
    moved &= (found.field == "age") & (found["from"] != "<30") & (found.to != "<30")
    found = found[~moved]
    return found.reset_index(drop=True).round({"confidence": 3})


def _votes(probs, given):
    """(N, K) log probabilities less the log of each value's mean self-confidence."""
    votes = np.log(np.clip(probs, 1e-4, 1))
    for value in np.unique(given):
        own = probs[given == value, value].mean()
        votes[:, value] -= np.log(np.clip(own, 1e-4, 1))
    return votes


def _disagreement(rows, name, probs):
    """The frame of `rank` of one attribute. probs: list of (N, K)."""
    unit = "image" if name == "mask" else "person"
    given = rows["age_group" if name == "age" else name].to_numpy(int)
    votes = np.mean([_votes(run, given) for run in probs], 0)
    votes = pd.DataFrame(votes).groupby(rows[unit].to_numpy(), sort=False).mean().to_numpy()
    first = ~rows[unit].duplicated().to_numpy()  # of each, in the same order
    rows, given, at = rows[first], given[first], np.arange(len(votes))
    # The temperature under which the labels given are likeliest.
    fit = [logsumexp(f * votes, axis=1).mean() - f * votes[at, given].mean() for f in FACTORS]
    probs = softmax(votes * FACTORS[np.argmin(fit)], 1)
    best, confidence = probs.argmax(1), probs.max(1)
    frame = pd.DataFrame({"id": rows.person, "field": name})
    if name == "mask":
        frame["field"] += ":" + rows.image.map(lambda image: PurePosixPath(image).stem)
    frame["from"], frame["to"] = (np.take(ATTRIBUTES[name], codes) for codes in (given, best))
    frame["confidence"], frame["note"] = confidence, rows[unit]
    return frame[(best != given) & (confidence > 0.5)]


def build(evidence):
    """Section "Label review"."""
    every = [run.probs for group in evidence.groups for run in group.runs]
    configs = [run.config["options"] for group in evidence.groups for run in group.runs]
    taught = [str(options.get("old_from", OLD_FROM)).split(" | ") for options in configs]
    every_age = [int(age) for ages in taught for age in ages]  # several, of an average
    old_from = max(every_age, key=lambda age: abs(age - OLD_FROM))
    found, says = rank(evidence.rows, every, old_from), marginals(np.mean(every, 0))
    items = [_item(evidence, row, says) for row in found.head(REVIEWED).to_dict("records")]
    intro = (
        "Labels contradicted by models that never saw these people; on gender and age the seven "
        "photos of a person vote together. Look before you believe: a hard photo and a wrong label "
        "look alike. Keep, fix or drop (from training only), download reviewed_fixes.csv into the "
        "project, add the rows of label_fixes.csv if you used it, and train on it: python train.py "
        "--label_fixes reviewed_fixes.csv. This browser remembers what you chose."
    )
    caption = "Labels for which another value is likelier."
    review = html.review(fingerprint(evidence.data.frame), items) if items else ""
    table = page.keep(evidence, "suspects", found, caption, limit=10)
    return {"title": "Label review", "intro": intro, "blocks": [review, table]}


def _item(evidence, row, says):
    """A label to review, for the page. row: of COLUMNS; says: {name: (N, K)}, a mean of runs."""
    rows, photos = evidence.rows[evidence.rows.person == row["id"]], []
    name, _, of_photo = row["field"].partition(":")
    for at, image in rows.sort_values("mask", ascending=False, kind="stable").image.items():
        code, stem = says[name][at].argmax(), PurePosixPath(image).stem
        vote = f"{ATTRIBUTES[name][code]} {says[name][at, code]:.2f}"
        picture = page.photo(evidence.data, image)
        photos.append((*picture, stem.replace("_", " "), vote, stem == of_photo))
    values = dict.fromkeys((row["from"], row["to"], *ATTRIBUTES[name]))
    person = f"{ATTRIBUTES['gender'][rows.gender.iloc[0]]}, {rows.age.iloc[0]:.0f} years"
    return row | {"photos": photos, "choices": list(values), "person": person}
