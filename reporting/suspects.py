"""Labels that look wrong, after confident learning (Northcutt et al. 2021), and their review."""

from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from scipy.special import logsumexp, softmax

from experiment.run_folder import fingerprint
from labels import ATTRIBUTES, marginals
from reporting import page
from reporting.page import html

KEY = ["id", "field"]
COLUMNS = [*KEY, "from", "to", "confidence", "note"]  # those of label_fixes.csv
FACTORS = np.geomspace(0.05, 10, 107)
SUSPECTS, MISTAKES = 30, 15  # labels to review


def rank(rows, probs):
    """Labels than which another is likelier, the surest first: a frame with COLUMNS (`id` is the
    person's folder; `confidence` the probability of `to` against all other values) and margin.

    rows: frame (image, person, mask, gender, age_group), one row an image; probs: list of (N, 18)
    out-of-fold probabilities, of which the mean of the logs counts. The photos of a person vote on
    gender and age group; the mask state belongs to a photo. Each value's probability is divided by
    its mean over the images that carry it, the threshold of confident learning: a model that is shy
    of a rare class does not thereby call its members wrong. Then the votes of an attribute are
    tempered (Guo et al. 2017, arXiv:1706.04599): where models err often, their word counts less.
    """
    frames = []
    for name in ATTRIBUTES:
        given = rows["age_group" if name == "age" else name].to_numpy(int)
        votes = np.mean([_votes(marginals(run)[name], given) for run in probs], 0)
        frames.append(_disagreement(rows, name, given, votes))
    order = {"by": ["confidence", "margin"], "ascending": False, "kind": "stable"}
    return pd.concat(frames).sort_values(**order, ignore_index=True)


def _votes(probs, given):
    """(N, K) log probabilities less the log of each value's mean self-confidence."""
    votes = np.log(np.clip(probs, 1e-4, 1))
    for value in np.unique(given):
        own = probs[given == value, value].mean()
        votes[:, value] -= np.log(np.clip(own, 1e-4, 1))
    return votes


def _disagreement(rows, name, given, votes):
    """The frame of `rank` of one attribute."""
    unit = rows.image if name == "mask" else rows.person
    votes = pd.DataFrame(votes).groupby(unit.to_numpy()).mean().to_numpy()
    first = np.unique(unit, return_index=True)[1]
    given, at = given[first], np.arange(len(first))
    # The temperature under which the labels given are likeliest.
    fit = [logsumexp(f * votes, axis=1).mean() - f * votes[at, given].mean() for f in FACTORS]
    votes = votes * FACTORS[np.argmin(fit)]
    others = votes.copy()
    others[at, given] = -np.inf
    best = others.argmax(1)
    places = [_place(name, row) for row in rows.iloc[first].itertuples()]
    frame = pd.DataFrame(places, columns=[*KEY, "note"])
    frame["from"], frame["to"] = (np.take(ATTRIBUTES[name], codes) for codes in (given, best))
    frame["confidence"] = softmax(votes, 1)[at, best].round(3)
    frame["margin"] = votes[at, best] - votes[at, given]
    return frame.loc[frame.confidence > 0.5, [*COLUMNS, "margin"]]


def _place(name, row):
    """(id, field, note) of a label: of the person's gender or age, of one photo's mask."""
    photo = PurePosixPath(row.image)
    if name == "mask":
        return row.person, f"mask:{photo.stem}", f"{row.person} {photo.name}"
    return row.person, name, row.person


def doubts(mistakes):
    """A frame with COLUMNS: the labels that mistakes contradict, each once, in their order;
    `confidence` is the probability of the class that was predicted.
    """
    lines = []
    for row in mistakes.itertuples():
        values = zip(row.label.split(), row.prediction.split(), strict=True)
        for name, (old, new) in zip(ATTRIBUTES, values, strict=True):
            if old != new:
                person, field, note = _place(name, row)
                lines.append((person, field, old, new, row.p_prediction, note))
    return pd.DataFrame(lines, columns=COLUMNS).drop_duplicates(KEY)


def build(evidence):
    """Section "Label review"."""
    every = [run.probs for group in evidence.groups for run in group.runs]
    found = rank(evidence.rows, every)[COLUMNS]
    caption, nobody = "Sorted by confidence.", "No other label is likelier than the one given."
    intro = (
        "Labels that models which never saw these people contradict: the suspects, where the "
        "seven photos of a person agree on something else, and the most confident mistakes. Look "
        "before you believe: a hard photo and a wrong label look alike. Keep, fix or drop (from "
        "training only), download label_fixes.csv, and train on it: python train.py "
        "--label_fixes label_fixes.csv. This browser remembers what you chose."
    )
    blocks = [
        _review(evidence, found, marginals(np.mean(every, 0))),
        page.keep(evidence, "suspects", found, caption, limit=10, empty=nobody),
    ]
    return {"title": "Label review", "intro": intro, "blocks": blocks}


def _review(evidence, found, says):
    """The form of the first suspects and mistakes. says: labels.marginals() of the runs' mean."""
    first, best = found.head(SUSPECTS), evidence.best
    both = pd.concat([first, doubts(evidence.mistakes(best))]).drop_duplicates(KEY)
    items = [_item(evidence, row, says) for row in both[: len(first) + MISTAKES].to_dict("records")]
    groups = {"Suspects": items[: len(first)], f"Confident mistakes of {best}": items[len(first) :]}
    return html.review(fingerprint(evidence.data.frame), groups) if items else ""


def _item(evidence, row, says):
    """A label to review, as the page takes it. row: of COLUMNS; says: {name: (N, K)}."""
    rows = evidence.rows[evidence.rows.person == row["id"]]
    name, _, of_photo = row["field"].partition(":")
    photos, values = [], ATTRIBUTES[name]
    for at, image in rows.sort_values("mask", ascending=False, kind="stable").image.items():
        code, stem = says[name][at].argmax(), PurePosixPath(image).stem
        vote = f"{values[code]} {says[name][at, code]:.2f}"
        picture = page.photo(evidence.data, image)
        photos.append((*picture, stem.replace("_", " "), vote, stem == of_photo))
    choices = {value: f"fix: {value}" for value in (row["from"], row["to"], *values)}
    choices[row["from"]] = f"keep {row['from']}"
    choices["drop"] = "drop the photo" if of_photo else "drop the person"
    gender, age = ATTRIBUTES["gender"][rows.gender.iloc[0]], f"{rows.age.iloc[0]:.0f} years"
    label = ", ".join(dict.fromkeys((gender, age, row["from"])))
    said = f"the models say {row['to']} ({row['confidence']:.2f})"
    words = f"{row['note']}: the label is {label}; {said}."
    return row | {"photos": photos, "choices": choices, "words": words}
