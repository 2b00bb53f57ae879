"""metrics.py against scikit-learn, on resampled tables, and on simulated runs of known truth."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

import metrics
from common.errors import UserError
from labels import ATTRIBUTES, CLASSES, decode

PHOTO_MASK = np.array([0, 0, 0, 0, 0, 1, 2])
CELLS = np.array([549, 410, 83, 732, 817, 109]) / 2700  # gender x age of the competition


def sklearn_measures(labels, predictions):
    """Plain scikit-learn, one call a measure."""
    result = {
        "macro_f1": f1_score(
            labels, predictions, labels=range(CLASSES), average="macro", zero_division=0
        ),
        "accuracy": accuracy_score(labels, predictions),
    }
    true, predicted = decode(labels), decode(predictions)
    for name, values in ATTRIBUTES.items():
        result[name] = f1_score(
            true[name], predicted[name], labels=range(len(values)), average="macro", zero_division=0
        )
    return result


def people_and_runs(rng, people, skills):
    """labels, persons, [predictions of each skill]: seven photos a person; gender and age are
    mistaken mostly for whole persons, partly the same persons in every run."""
    cell = rng.choice(6, people, p=CELLS)
    labels = (6 * PHOTO_MASK[None] + cell[:, None]).ravel()
    hard = rng.standard_normal((people, 2, 1))
    runs = []
    for skill in skills:
        latent = 0.6 * hard + 0.5 * rng.standard_normal((people, 2, 1))
        latent = latent + 0.6 * rng.standard_normal((people, 2, 7))
        flip = (latent > skill).reshape(people, 2, 7)
        gender = np.where(flip[:, 0], 1 - cell[:, None] // 3, cell[:, None] // 3)
        age = np.where(flip[:, 1], 1 - cell[:, None] % 3 % 2, cell[:, None] % 3)
        runs.append((6 * PHOTO_MASK[None] + 3 * gender + age).ravel())
    return labels, np.repeat(np.arange(people), 7), runs


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def random_probs(rng, labels, strength=1.5):
    logits = rng.standard_normal((len(labels), CLASSES))
    logits[np.arange(len(labels)), labels] += strength
    exp = np.exp(logits)
    return exp / exp.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 18])
def test_macro_f1_is_sklearns(rng, classes):
    for size in (1, 5, 60, 3000):
        labels, predictions = rng.integers(0, classes, (2, size))
        expected = f1_score(
            labels, predictions, labels=range(classes), average="macro", zero_division=0
        )
        assert metrics.macro_f1(labels, predictions, classes) == pytest.approx(expected, abs=1e-12)


def test_score_is_sklearns(rng):
    labels = rng.choice([0, 1, 2, 3, 7, 9, 13, 16], 700)  # ten classes have no image
    probs = random_probs(rng, labels)
    predictions = probs.argmax(1)
    result = metrics.score(labels, probs)
    expected = sklearn_measures(labels, predictions)
    assert result["macro_f1"] == pytest.approx(expected["macro_f1"])
    assert result["accuracy"] == pytest.approx(expected["accuracy"])
    table = confusion_matrix(labels, predictions, labels=range(CLASSES))
    assert result["confusion"] == table.tolist()
    assert result["support"] == np.bincount(labels, minlength=CLASSES).tolist()
    for name, values in ATTRIBUTES.items():
        part = result["attributes"][name]
        true, predicted = decode(labels)[name], decode(predictions)[name]
        assert part["macro_f1"] == pytest.approx(expected[name])
        assert part["accuracy"] == pytest.approx(accuracy_score(true, predicted))
        kinds = range(len(values))
        assert part["confusion"] == confusion_matrix(true, predicted, labels=kinds).tolist()
        f1 = f1_score(true, predicted, labels=kinds, average=None, zero_division=0)
        assert part["per_class_f1"] == pytest.approx(f1.tolist())


def test_ece_is_that_of_a_plain_loop(rng):
    labels = rng.integers(0, CLASSES, 900)
    probs = random_probs(rng, labels, strength=3)
    top, right, expected = probs.max(1), probs.argmax(1) == labels, 0.0
    for low in range(15):
        inside = (top > low / 15) & (top <= (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - top[inside].mean())
    assert metrics.ece(labels, probs) == pytest.approx(expected)
    certain = np.eye(CLASSES)[labels]
    assert metrics.ece(labels, certain) == 0
    assert metrics.ece((labels + 1) % CLASSES, certain) == 1


def test_bootstrap_draws_are_sklearn_on_resampled_people(rng):
    """The weights of each draw, applied to photos and not to counts, give the same measures."""
    labels, persons, runs = people_and_runs(rng, 30, [0.8, 0.9])
    names = np.array([f"p{person * 7 % 30:02d}" for person in persons])
    shuffle = rng.permutation(len(labels))  # photos of a person need not stand together
    labels, names, runs = labels[shuffle], names[shuffle], [run[shuffle] for run in runs]
    groups = metrics._draws(labels, names, [runs[:1], runs[1:]], draws=5, seed=3)
    drawn = np.random.default_rng(3).integers(0, 30, (5, 30))
    of_person = [np.flatnonzero(names == name) for name in np.unique(names)]
    for run, (value, _, sample) in zip(runs, groups, strict=True):
        assert value[0] == pytest.approx(list(sklearn_measures(labels, run).values()))
        for draw in range(5):
            rows = np.concatenate([of_person[person] for person in drawn[draw]])
            expected = sklearn_measures(labels[rows], run[rows])
            assert sample[draw, 0] == pytest.approx(list(expected.values()), abs=1e-6)


def test_compare_reports_differences_and_their_sign(rng):
    labels, persons, (a, b) = people_and_runs(rng, 400, [0.5, 1.5])
    there, back = metrics.compare(labels, persons, a, b), metrics.compare(labels, persons, b, a)
    for name, value in sklearn_measures(labels, b).items():
        one, other = there[name], back[name]
        difference = value - sklearn_measures(labels, a)[name]
        assert one["b"] == pytest.approx(value)
        assert one["difference"] == pytest.approx(difference)
        assert one["low"] <= one["difference"] <= one["high"]
        assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]))
        assert one["sd_a"] is None
        assert (one["p"] < 0.05) == (one["low"] > 0 or one["high"] < 0)
    assert there["macro_f1"]["p"] < 0.01 < there["macro_f1"]["low"]
    assert there["mask"]["p"] == 1 and there["mask"]["difference"] == 0  # masks are never mistaken
    assert metrics.compare(labels, persons, a, b) == there  # same seed, same figures


def test_photos_of_one_person_count_as_one_chance(rng):
    """Copies of the same photo narrow nothing: 7 equal photos a person give the interval of 1."""
    labels, predictions = rng.integers(0, CLASSES, (2, 300))
    predictions[::2] = labels[::2]
    once = metrics.interval(labels, np.arange(300), predictions)
    copies = np.repeat(np.arange(300), 7)
    assert metrics.interval(labels[copies], copies, predictions[copies]) == pytest.approx(once)
    as_photos = metrics.interval(labels[copies], np.arange(2100), predictions[copies])
    assert as_photos[1] - as_photos[0] < 0.6 * (once[1] - once[0])


def test_seeds_are_resampled_too(rng):
    labels, persons, runs = people_and_runs(rng, 200, [0.8, 0.8, 0.8, 0.8])
    good = np.where(rng.random(len(labels)) < 0.5, labels, runs[0])
    same = metrics.compare(labels, persons, runs[:1] * 3, runs[1:2] * 3)["macro_f1"]
    alone = metrics.compare(labels, persons, runs[0], runs[1])["macro_f1"]
    assert same["high"] - same["low"] == pytest.approx(alone["high"] - alone["low"], rel=0.1)
    assert same["sd_a"] == pytest.approx(0)
    spread = metrics.compare(labels, persons, runs[:2], [runs[2], good])["macro_f1"]
    scores = [sklearn_measures(labels, run)["macro_f1"] for run in (*runs[:3], good)]
    assert spread["difference"] == pytest.approx(np.mean(scores[2:]) - np.mean(scores[:2]))
    assert spread["sd_b"] == pytest.approx(np.std(scores[2:], ddof=1))
    assert spread["high"] - spread["low"] > 1.5 * (alone["high"] - alone["low"])
    lists = [run.tolist() for run in runs[:2]]
    assert metrics.compare(labels, persons, *lists)["macro_f1"] == alone


@pytest.mark.parametrize("skills", [(0.7, 0.95), (0.8, 0.8)], ids=["difference", "none"])
def test_coverage_and_false_alarms(skills):
    """Of 240 simulated pairs 95 % hold the true difference: a known one, and none at all."""
    rng, reps = np.random.default_rng(11), 240
    truth = 0.0
    if skills[0] != skills[1]:
        labels, _, (a, b) = people_and_runs(np.random.default_rng(5), 150_000, skills)
        truth = metrics.macro_f1(labels, b) - metrics.macro_f1(labels, a)
        assert truth > 0.05
    inside = 0
    for rep in range(reps):
        labels, persons, runs = people_and_runs(rng, 300, skills)
        result = metrics.compare(labels, persons, *runs, draws=400, seed=rep)["macro_f1"]
        inside += result["low"] <= truth <= result["high"]
    assert abs(inside / reps - 0.95) < 4 * np.sqrt(0.05 * 0.95 / reps)  # four standard errors


def test_influence_is_the_derivative(rng):
    labels, persons, runs = people_and_runs(rng, 40, [0.8])
    table = metrics._tables(labels, persons, 40, runs[0])
    influence, step = metrics._influence(table), 1e-3
    assert influence.sum(0) == pytest.approx(0, abs=1e-6)
    for person in (0, 17):
        ends = []
        for sign in (1, -1):
            weights = np.where(persons == person, 1 + sign * step, 1)
            macro = f1_score(
                labels,
                runs[0],
                labels=range(CLASSES),
                average="macro",
                zero_division=0,
                sample_weight=weights,
            )
            ends.append((macro, accuracy_score(labels, runs[0], sample_weight=weights)))
        slope = (np.array(ends[0]) - ends[1]) / (2 * step)
        assert influence[person, :2] == pytest.approx(slope, abs=1e-5)


def test_pairs_of_conditions_are_drawn_together(rng):
    """One change under two conditions that differ a lot: paired, the conditions cancel."""
    labels, persons, (bad, good) = people_and_runs(rng, 300, [0.2, 1.5])
    better = [np.where(rng.random(len(labels)) < 0.2, labels, run) for run in (bad, good)]
    pooled = metrics.compare(labels, persons, [bad, good], better, paired=True)["macro_f1"]
    loose = metrics.compare(labels, persons, [bad, good], better)["macro_f1"]
    assert pooled["difference"] == pytest.approx(loose["difference"])
    assert pooled["high"] - pooled["low"] < 0.5 * (loose["high"] - loose["low"])
    with pytest.raises(UserError, match="no pairs"):
        metrics.compare(labels, persons, [bad, good], better[:1], paired=True)


def test_what_cannot_be_compared():
    with pytest.raises(UserError, match="3 predictions for 4 labels"):
        metrics.compare([0, 1, 2, 3], list("aabb"), [0, 1, 2, 3], [0, 1, 2])
    with pytest.raises(UserError, match="2 persons"):
        metrics.compare([0, 1, 2, 3], list("ab"), [0, 1, 2, 3], [0, 1, 2, 3])
    with pytest.raises(UserError, match="cannot be scored"):
        metrics.score([], np.zeros((0, CLASSES)))
