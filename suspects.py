"""Labels that look wrong: people whose photos, predicted by models that never saw them, all say
something else than the table. After confident learning (Northcutt et al. 2021)."""

from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from labels import ATTRIBUTES, marginals

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
