"""The sections of the report on what goes wrong: mistakes, and labels that look wrong.

The latter after confident learning (Northcutt et al. 2021).
"""

from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from labels import ATTRIBUTES, marginals
from reporting import figures, page, runs, survey

CARDS = 18  # mistakes and suspects shown


def build_errors(tables, rows, data, groups, best):
    """Section "Errors": of every run as csv, of the best on the page."""
    tables["mistakes"] = pd.concat(
        [runs.mistakes(rows, group.probs).assign(run=group.name) for group in groups],
        ignore_index=True,
    )
    by_age = runs.error_by_age(rows, best.probs)
    tables["error_by_age"] = pd.concat(
        [runs.error_by_age(rows, group.probs).assign(run=group.name) for group in groups],
        ignore_index=True,
    )
    wrong = tables["mistakes"][tables["mistakes"].run == best.name]
    kinds = wrong.wrong.value_counts().rename_axis("what is wrong").reset_index(name="images")
    kinds["share of mistakes"] = (kinds.images / max(len(wrong), 1)).map("{:.0%}".format)
    intro = (
        f"{best.name}, the run with the best score, errs on {len(wrong):,} of {len(rows):,} photos."
    )
    said = "What the model said and its probability, then the label. One photo a person."
    blocks = [
        page.keep(tables, "mistake_kinds", kinds, "What is wrong in the wrong ones."),
        page.figure(
            figures.errors_by_age(by_age, best.name),
            "Points: one year of age; lines: the mean over five years.",
        ),
        page.heading("The most confident mistakes", said),
        page.photo_cards(data, wrong.drop_duplicates("person").head(CARDS)),
    ]
    return page.section("errors", "Errors", intro, blocks)


# ---- suspect labels


def build_suspects(tables, rows, data, groups, wrong_people):
    """Section "Suspect labels". wrong_people: names, where the truth is known, or None."""
    found = rank(rows, [run.probs for group in groups for run in group.runs])
    tables["suspects"] = found[COLUMNS]
    intro = (
        "People whose seven photos, predicted by models that never saw them, agree on something "
        "else than the label. Look before you believe: a hard photo and a wrong label look alike. "
        "suspects.csv has them in the format of label_fixes.csv: review it, then train with "
        "--label_fixes suspects.csv."
    )
    blocks = []
    if wrong_people:
        result = against_truth(found, wrong_people)
        blocks.append(
            page.text(
                f"The truth of these data is known: {result['people']} people have a wrong gender "
                f"or age, and {result['found']} of them are among the first {result['people']} "
                f"of the ranking (precision and recall {result['precision']:.2f})."
            )
        )
        tables["suspects_truth"] = pd.DataFrame([result])
    items = []
    for row in found.head(CARDS).rename(columns={"from": "given"}).itertuples():
        photos = rows[rows.person == row.person].sort_values("mask", ascending=False).image
        if row.field.startswith("mask"):  # the photo itself first
            photos = [row.image, *photos[photos != row.image]]
        title = f"{row.field}: {row.given} \N{RIGHTWARDS ARROW} {row.to}?"
        lines = [row.note, f"{row.years} years", f"confidence {row.confidence:.2f}"]
        images = [(survey.photo_uri(data.root / image), image) for image in photos[:3]]
        items.append(page.card(images, title, lines))
    caption = "The surest first."
    nobody = "No other label is likelier than the one given."
    blocks += [
        page.cards(items),
        page.keep(tables, "suspects", found[COLUMNS], caption, limit=30, empty=nobody),
    ]
    return page.section("suspects", "Suspect labels", intro, blocks)


COLUMNS = ["id", "field", "from", "to", "confidence", "note"]
FACTORS = np.geomspace(0.05, 10, 107)


def rank(rows, probs):
    """People and photos of whom another label is likelier than not, the surest first.

    rows: frame (image, person, id, age, mask, gender, age_group), one row an image;
    probs: (N, 18) out-of-fold probabilities, or a list of them (runs are averaged in logs).
    For gender and age group the photos of a person vote by their mean log probability; the mask
    state belongs to a photo. Each value's probability is divided by its mean over the images that
    carry it, the threshold of confident learning: a model that is shy of a rare class does not
    thereby call its members wrong. Then the votes of an attribute are tempered (Guo et al. 2017,
    arXiv:1706.04599) to fit the labels given: where models err often, their word counts less.

    Returns a frame with COLUMNS (those of label_fixes.csv, where `id` may be the person's folder,
    which no two people share) and person, image, margin, years.
    `confidence` is the probability of `to` against all other values, 0..1.
    """
    runs = probs if isinstance(probs, list) else [probs]
    frames = []
    for name in ATTRIBUTES:
        given = rows["age_group" if name == "age" else name].to_numpy(int)
        logs = np.mean([_evidence(marginals(run)[name], given) for run in runs], 0)
        frames.append(_disagreement(rows, name, given, logs))
    found = pd.concat(frames, ignore_index=True)
    return found.sort_values("margin", ascending=False, kind="stable", ignore_index=True)


def _evidence(probs, given):
    """(N, K) log probabilities less the log of each value's mean self-confidence."""
    logs = np.log(np.clip(probs, 1e-4, 1))
    for k in range(probs.shape[1]):
        if (given == k).any():
            logs[:, k] -= np.log(np.clip(probs[given == k, k].mean(), 1e-4, 1))
    return logs


def _temper(logs, given):
    """The factor of (N, K) log scores under which the labels given are likeliest."""
    at = np.arange(len(given))
    fit = [logsumexp(f * logs, axis=1).mean() - f * logs[at, given].mean() for f in FACTORS]
    return FACTORS[int(np.argmin(fit))]


def _disagreement(rows, name, given, logs):
    unit = rows.image if name == "mask" else rows.person
    units, first, index = np.unique(unit, return_index=True, return_inverse=True)
    counts = np.bincount(index)
    mean = np.stack([np.bincount(index, column) for column in logs.T], 1) / counts[:, None]
    given = given[first]
    mean *= _temper(mean, given)
    at = np.arange(len(units))
    others = mean.copy()
    others[at, given] = -np.inf
    best = others.argmax(1)
    margin = others[at, best] - mean[at, given]
    share = np.exp(mean - mean.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    people = rows.iloc[first].reset_index(drop=True)
    names = np.array(ATTRIBUTES[name])
    notes = [
        f"{row.person}" + (f" {PurePosixPath(row.image).name}" if name == "mask" else "")
        for row in people.itertuples()
    ]
    stems = [f":{PurePosixPath(image).stem}" if name == "mask" else "" for image in people.image]
    table = pd.DataFrame(
        {
            "id": people.person,
            "field": [name + stem for stem in stems],
            "from": names[given],
            "to": names[best],
            "confidence": share[at, best].round(3),
            "note": notes,
            "person": people.person,
            "image": people.image,
            "margin": margin,
            "years": people.age,
        }
    )
    return table[table.confidence > 0.5]


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
