"""Labels that look wrong, after confident learning (Northcutt et al. 2021), and their review."""

from pathlib import Path, PurePosixPath

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
    """People and photos of whom another label is likelier than not, the surest first.

    rows: frame (image, person, id, age, mask, gender, age_group), one row an image;
    probs: list of (N, 18) out-of-fold probabilities, of which the mean of the logs counts.
    For gender and age group the photos of a person vote by their mean log probability; the mask
    state belongs to a photo. Each value's probability is divided by its mean over the images that
    carry it, the threshold of confident learning: a model that is shy of a rare class does not
    thereby call its members wrong. Then the votes of an attribute are tempered (Guo et al. 2017,
    arXiv:1706.04599) to fit the labels given: where models err often, their word counts less.

    Returns a frame with COLUMNS (`id` is the person's folder, which no two people share) and
    margin. `confidence` is the probability of `to` against all other values, 0..1, by which the
    frame is sorted.
    """
    frames = []
    for name in ATTRIBUTES:
        given = rows["age_group" if name == "age" else name].to_numpy(int)
        votes = np.mean([_votes(marginals(run)[name], given) for run in probs], 0)
        frames.append(_disagreement(rows, name, given, votes))
    found = pd.concat(frames, ignore_index=True)
    order = ["confidence", "margin"]
    return found.sort_values(order, ascending=False, kind="stable", ignore_index=True)


def _votes(probs, given):
    """(N, K) log probabilities less the log of each value's mean self-confidence."""
    votes = np.log(np.clip(probs, 1e-4, 1))
    for value in np.unique(given):
        own = probs[given == value, value].mean()
        votes[:, value] -= np.log(np.clip(own, 1e-4, 1))
    return votes


def _temper(votes, given):
    """The factor of (N, K) log scores under which the labels given are likeliest."""
    at = np.arange(len(given))
    fit = [logsumexp(f * votes, axis=1).mean() - f * votes[at, given].mean() for f in FACTORS]
    return FACTORS[int(np.argmin(fit))]


def _disagreement(rows, name, given, votes):
    """The frame of `rank` of one attribute."""
    unit = rows.image if name == "mask" else rows.person
    votes = pd.DataFrame(votes).groupby(unit.to_numpy()).mean()
    first = np.unique(unit, return_index=True)[1]
    people, given, votes = rows.iloc[first].reset_index(drop=True), given[first], votes.to_numpy()
    votes = votes * _temper(votes, given)
    at = np.arange(len(people))
    others = votes.copy()
    others[at, given] = -np.inf
    best = others.argmax(1)
    places = [_place(name, *pair) for pair in zip(people.person, people.image, strict=True)]
    frame = pd.DataFrame(
        {
            "id": people.person,
            "field": [field for field, _ in places],
            "from": np.take(ATTRIBUTES[name], given),
            "to": np.take(ATTRIBUTES[name], best),
            "confidence": softmax(votes, 1)[at, best].round(3),
            "note": [note for _, note in places],
            "margin": votes[at, best] - votes[at, given],
        }
    )
    return frame[frame.confidence > 0.5]


def _place(name, person, image):
    """(field, note) of a label: of the person's gender or age, of one photo's mask."""
    photo = PurePosixPath(image)
    return (f"{name}:{photo.stem}", f"{person} {photo.name}") if name == "mask" else (name, person)


def doubts(mistakes):
    """A frame with COLUMNS: the labels that runs.mistakes contradict, each once, in their order.

    `confidence` is the probability of the class that was predicted.
    """
    lines = []
    for row in mistakes.itertuples():
        labels = zip(ATTRIBUTES, row.label.split(), row.prediction.split(), strict=True)
        for name, old, new in labels:
            if old != new:
                field, note = _place(name, row.person, row.image)
                lines.append((row.person, field, old, new, row.p_prediction, note))
    return pd.DataFrame(lines, columns=COLUMNS).drop_duplicates(KEY)


def against_truth(found, wrong_people):
    """Precision and recall of the ranking of people by gender and age, when the truth is known.

    found: as `rank` gives it; wrong_people: names of the people whose gender or age is wrong in
    the table. Returns {"people", "found", "precision", "recall"}: precision and recall of the
    first `people` of the ranking (as many as there are wrong people, so that the two are equal
    where it is that long), and `found`, how many of those are wrong indeed.
    """
    ranked = found.id[~found.field.str.startswith("mask")].unique()[: len(wrong_people)]
    hits = len(set(wrong_people).intersection(ranked))
    shares = {"precision": hits / max(len(ranked), 1), "recall": hits / max(len(wrong_people), 1)}
    return {"people": len(wrong_people), "found": hits} | shares


def wrong_people(data, people):
    """Which of `people` have a wrong gender or age, where a drawn competition tells; else none."""
    path = Path(data.root).resolve().parent.parent / "truth_train.csv"
    if not path.is_file():
        return []
    truth = pd.read_csv(path, dtype={"path": str})
    if "noisy" not in truth or not set(truth.path) >= set(data.frame.person):
        return []  # of some other data
    return sorted(set(people).intersection(truth.path[truth.noisy == 1]))


def build(evidence):
    """Section "Label review"."""
    every = [run.probs for group in evidence.groups for run in group.runs]
    found, truth = rank(evidence.rows, every), ""
    wrong = wrong_people(evidence.data, evidence.rows.person)
    if wrong:
        result = against_truth(found, wrong)
        evidence.tables["suspects_truth"] = pd.DataFrame([result])
        truth = (
            f"The truth of these data is known: {result['people']} people have a wrong gender "
            f"or age, and {result['found']} of them are among the first {result['people']} "
            f"of the ranking (precision and recall {result['precision']:.2f})."
        )
    caption, nobody = "Sorted by confidence.", "No other label is likelier than the one given."
    intro = (
        "Labels that models which never saw these people contradict: the suspects, where the "
        "seven photos of a person agree on something else, and the most confident mistakes. Look "
        "before you believe: a hard photo and a wrong label look alike. Keep, fix or drop (from "
        "training only), download label_fixes.csv, and train on it: python train.py "
        "--label_fixes label_fixes.csv. This browser remembers what you chose."
    )
    blocks = [
        html.text(truth),
        _review(evidence, found, [marginals(run) for run in every]),
        page.keep(evidence, "suspects", found[COLUMNS], caption, limit=10, empty=nobody),
    ]
    return page.section("suspects", "Label review", intro, blocks)


def _review(evidence, found, votes):
    """The form of the first suspects and mistakes. votes: one labels.marginals() a run."""
    says = {name: np.mean([run[name] for run in votes], 0) for name in ATTRIBUTES}
    first, best = found[COLUMNS].head(SUSPECTS), evidence.best
    both = pd.concat([first, doubts(evidence.mistakes[best])]).drop_duplicates(KEY)
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
