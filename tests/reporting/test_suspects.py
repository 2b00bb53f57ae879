"""The ranking of labels that look wrong, on simulated people whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from labels import ATTRIBUTES, HEADS, joint, marginals
from reporting import suspects


def share_wrong(found, wrong):
    """Of the people who lead the ranking by gender and age, as many as are wrong: how many are."""
    ranked = found.id[~found.field.str.startswith("mask")].unique()[: len(wrong)]
    return len(set(ranked).intersection(f"{k:03d}" for k in wrong)) / len(wrong)


def test_suspects_on_many_people():
    """Of 300 people 15 have a wrong gender or age group: most of them lead the ranking."""
    rng, people = np.random.default_rng(5), 300
    wrong = rng.permutation(people)[:15]
    true = {"gender": rng.integers(0, 2, people), "age": rng.choice(3, people, p=[0.5, 0.4, 0.1])}
    given = {name: codes.copy() for name, codes in true.items()}
    given["gender"][wrong[:8]] ^= 1
    given["age"][wrong[8:]] = (given["age"][wrong[8:]] + 1) % 3
    person = np.repeat(np.arange(people), 7)
    mask = np.tile([0, 0, 0, 0, 0, 1, 2], people)
    probs = {"mask": np.eye(3)[mask] * 0.97 + 0.01}
    for name, codes in true.items():
        values = HEADS[name]
        logits = rng.standard_normal((people * 7, values)) + 3.5 * np.eye(values)[codes[person]]
        logits[:, -1] -= 1.5 if name == "age" else 0  # it is shy of the rare class
        probs[name] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rows = pd.DataFrame(
        {
            "image": [f"{k:03d}/{i}.jpg" for k in range(people) for i in range(7)],
            "person": [f"{k:03d}" for k in person],
            "id": [f"{k:06d}" for k in person],
            "age": 30,
            "mask": mask,
            "gender": given["gender"][person],
            "age_group": given["age"][person],
        }
    )
    found = suspects.rank(rows, [joint(probs)])
    assert share_wrong(found, wrong) >= 0.8
    first = found.iloc[0]
    k = int(first.id)
    values = ATTRIBUTES[first.field]
    assert first["from"] == values[given[first.field][k]]
    assert first.to == values[true[first.field][k]] and 0.5 < first.confidence <= 1
    assert marginals(joint(probs))["gender"] == pytest.approx(probs["gender"])
    for age, old_from in ((58, 58), (64, 65)):
        taught = suspects.rank(rows.assign(age=age), [joint(probs)], old_from=old_from)
        by_boundary = (found.field == "age") & (found["from"] != "<30") & (found.to != "<30")
        assert by_boundary.any() and taught.equals(found[~by_boundary].reset_index(drop=True))


def test_the_word_of_a_model_that_errs_counts_less():
    """Age is predicted surely and by chance, gender well: the wrong genders lead the ranking."""
    rng, people = np.random.default_rng(6), 200
    person = np.repeat(np.arange(people), 7)
    gender, age = rng.integers(0, 2, people), rng.integers(0, 3, people)
    wrong = np.arange(10)
    given = np.where(np.arange(people) < 10, 1 - gender, gender)
    logits = {
        "gender": rng.standard_normal((people * 7, 2)) + 2.5 * np.eye(2)[gender[person]],
        "age": 0.1 * rng.standard_normal((people * 7, 3))
        + 8 * np.eye(3)[rng.integers(0, 3, people)[person]],
    }
    probs = {name: np.exp(v) / np.exp(v).sum(1, keepdims=True) for name, v in logits.items()}
    probs["mask"] = np.eye(3)[np.tile([0, 0, 0, 0, 0, 1, 2], people)] * 0.97 + 0.01
    rows = pd.DataFrame(
        {
            "image": [f"{k:03d}/{i}.jpg" for k in range(people) for i in range(7)],
            "person": [f"{k:03d}" for k in person],
            "id": [f"{k:06d}" for k in person],
            "age": 30,
            "mask": probs["mask"].argmax(1),
            "gender": given[person],
            "age_group": age[person],
        }
    )
    found = suspects.rank(rows, [joint(probs)])
    assert share_wrong(found, wrong) >= 0.9 and (found.head(8).field == "gender").all()
