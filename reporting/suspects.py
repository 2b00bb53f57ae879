"""Labels that look wrong, after confident learning (Northcutt et al. 2021), and their section."""

from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from scipy.special import logsumexp, softmax

from labels import ATTRIBUTES, marginals
from reporting import page
from reporting.page import html

COLUMNS = ["id", "field", "from", "to", "confidence", "note"]  # those of label_fixes.csv
FACTORS = np.geomspace(0.05, 10, 107)
CARDS = 18  # suspects shown


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
    person, image, margin, years. `confidence` is the probability of `to` against all other
    values, 0..1.
    """
    frames = []
    for name in ATTRIBUTES:
        given = rows["age_group" if name == "age" else name].to_numpy(int)
        votes = np.mean([_votes(marginals(run)[name], given) for run in probs], 0)
        frames.append(_disagreement(rows, name, given, votes))
    found = pd.concat(frames, ignore_index=True)
    return found.sort_values("margin", ascending=False, kind="stable", ignore_index=True)


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
    photos = [PurePosixPath(image) if name == "mask" else None for image in people.image]
    frame = pd.DataFrame(
        {
            "id": people.person,
            "field": [f"{name}:{photo.stem}" if photo else name for photo in photos],
            "from": np.take(ATTRIBUTES[name], given),
            "to": np.take(ATTRIBUTES[name], best),
            "confidence": softmax(votes, 1)[at, best].round(3),
            "note": [
                f"{person} {photo.name}" if photo else person
                for person, photo in zip(people.person, photos, strict=True)
            ],
            "person": people.person,
            "image": people.image,
            "margin": votes[at, best] - votes[at, given],
            "years": people.age,
        }
    )
    return frame[frame.confidence > 0.5]


def against_truth(found, wrong_people):
    """Precision and recall of the ranking of people by gender and age, when the truth is known.

    found: as `rank` gives it; wrong_people: names of the people whose gender or age is wrong in
    the table. Returns {"people", "found", "precision", "recall"}: precision and recall of the
    first `people` of the ranking (as many as there are wrong people, so that the two are equal
    where it is that long), and `found`, how many of those are wrong indeed.
    """
    wrong = set(wrong_people)
    people = found[~found.field.str.startswith("mask")].drop_duplicates("person").person
    ranked = people.tolist()[: len(wrong)]
    hits = len(wrong.intersection(ranked))
    return {
        "people": len(wrong),
        "found": hits,
        "precision": hits / max(len(ranked), 1),
        "recall": hits / max(len(wrong), 1),
    }


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
    """Section "Suspect labels"."""
    found = rank(evidence.rows, [run.probs for group in evidence.groups for run in group.runs])
    wrong, truth = wrong_people(evidence.data, evidence.rows.person), ""
    if wrong:
        result = against_truth(found, wrong)
        evidence.tables["suspects_truth"] = pd.DataFrame([result])
        truth = (
            f"The truth of these data is known: {result['people']} people have a wrong gender "
            f"or age, and {result['found']} of them are among the first {result['people']} "
            f"of the ranking (precision and recall {result['precision']:.2f})."
        )
    cards = [_card(evidence, row) for row in found.head(CARDS).to_dict("records")]
    caption, nobody = "The surest first.", "No other label is likelier than the one given."
    intro = (
        "People whose seven photos, predicted by models that never saw them, agree on something "
        "else than the label. Look before you believe: a hard photo and a wrong label look alike. "
        "suspects.csv has them in the format of label_fixes.csv: review it, then train with "
        "--label_fixes suspects.csv."
    )
    blocks = [
        html.text(truth),
        html.cards(cards),
        page.keep(evidence, "suspects", found[COLUMNS], caption, limit=30, empty=nobody),
    ]
    return page.section("suspects", "Suspect labels", intro, blocks)


def _card(evidence, row):
    rows = evidence.rows[evidence.rows.person == row["person"]]
    photos = rows.sort_values("mask", ascending=False).image
    if row["field"].startswith("mask"):  # the photo itself first
        photos = [row["image"], *photos[photos != row["image"]]]
    title = f"{row['field']}: {row['from']} \N{RIGHTWARDS ARROW} {row['to']}?"
    lines = [row["note"], f"{row['years']} years", f"confidence {row['confidence']:.2f}"]
    return html.card([page.photo(evidence.data, image) for image in photos[:3]], title, lines)
