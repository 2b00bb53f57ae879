"""Intervals and comparisons against scikit-learn on resampled people, and on simulated runs."""

from itertools import product

import numpy as np
import pytest
from helpers import CELLS, macro_f1_sklearn
from scipy import stats
from sklearn.metrics import accuracy_score

from common.errors import UserError
from experiment import comparison
from labels import ATTRIBUTES, CLASSES, HEADS, decode

PHOTO_MASK = np.array([0, 0, 0, 0, 0, 1, 2])


def sklearn_measures(labels, predictions):
    """Plain scikit-learn, one call a measure."""
    result = {
        "macro_f1": macro_f1_sklearn(labels, predictions),
        "accuracy": accuracy_score(labels, predictions),
    }
    true, predicted = decode(labels), decode(predictions)
    for name in ATTRIBUTES:
        result[name] = macro_f1_sklearn(true[name], predicted[name], HEADS[name])
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


def test_bootstrap_draws_are_sklearn_on_resampled_people(rng):
    """The weights of each draw, applied to photos and not to counts, give the same measures."""
    labels, persons, runs = people_and_runs(rng, 30, [0.8, 0.9])
    names = np.array([f"p{person * 7 % 30:02d}" for person in persons])
    shuffle = rng.permutation(len(labels))  # photos of a person need not stand together
    labels, names, runs = labels[shuffle], names[shuffle], [run[shuffle] for run in runs]
    groups = comparison.bootstrap(labels, names, [runs[:1], runs[1:]], draws=5, seed=3)
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
    there, back = (
        comparison.compare(labels, persons, a, b),
        comparison.compare(labels, persons, b, a),
    )
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
    assert comparison.compare(labels, persons, a, b) == there  # same seed, same figures


def test_photos_of_one_person_count_as_one_chance(rng):
    """Copies of the same photo narrow nothing: 7 equal photos a person give the interval of 1."""
    labels, predictions = rng.integers(0, CLASSES, (2, 300))
    predictions[::2] = labels[::2]
    copies = np.repeat(np.arange(300), 7)
    once, same, as_photos = (
        comparison.intervals(labels[rows], persons, predictions[rows])["macro_f1"][1:]
        for rows, persons in (
            (np.arange(300), np.arange(300)),
            (copies, copies),
            (copies, np.arange(2100)),
        )
    )
    assert same == pytest.approx(once)
    assert as_photos[1] - as_photos[0] < 0.6 * (once[1] - once[0])


def test_seeds_are_resampled_too(rng):
    labels, persons, runs = people_and_runs(rng, 200, [0.8, 0.8, 0.8, 0.8])
    good = np.where(rng.random(len(labels)) < 0.5, labels, runs[0])
    same = comparison.compare(labels, persons, runs[:1] * 3, runs[1:2] * 3)["macro_f1"]
    alone = comparison.compare(labels, persons, runs[0], runs[1])["macro_f1"]
    assert same["high"] - same["low"] == pytest.approx(alone["high"] - alone["low"], rel=0.1)
    assert same["sd_a"] == pytest.approx(0)
    spread = comparison.compare(labels, persons, runs[:2], [runs[2], good])["macro_f1"]
    scores = [sklearn_measures(labels, run)["macro_f1"] for run in (*runs[:3], good)]
    assert spread["difference"] == pytest.approx(np.mean(scores[2:]) - np.mean(scores[:2]))
    assert spread["sd_b"] == pytest.approx(np.std(scores[2:], ddof=1))
    assert spread["high"] - spread["low"] > 1.5 * (alone["high"] - alone["low"])
    lists = [run.tolist() for run in runs[:2]]
    assert comparison.compare(labels, persons, *lists)["macro_f1"] == alone


def few_old_people(rng, people, old, chances):
    """labels, [predictions of each chance]: seven photos a person, of whom `old` are of the
    oldest group. Their photos are taken for younger ones, with about that chance, which varies
    by person; of the others' photos 2 % get another age.
    """
    person = np.arange(people)
    age, gender = np.where(person < old, 2, person % 2), person // 2 % 2
    labels = (6 * PHOTO_MASK + (3 * gender + age)[:, None]).ravel()
    runs = []
    for chance in chances:
        chance = np.where(age == 2, rng.normal(chance, 0.2, people), 0.02)
        wrong = rng.random((people, 7)) < chance[:, None]
        runs.append(labels + (wrong * np.where(age == 0, 1, -1)[:, None]).ravel())
    return labels, runs


def plain_percentile(labels, people, runs, rng):
    """(low, high) of the difference of macro F1: quantiles of 300 samples of people."""
    weights, values = rng.multinomial(people, np.full(people, 1 / people), 300), []
    for run in runs:
        true, found = np.eye(CLASSES)[labels], np.eye(CLASSES)[run]
        hit, total = (
            weights @ photos.reshape(people, 7, CLASSES).sum(1)
            for photos in (true * found, true + found)
        )
        values.append((2 * hit / np.maximum(total, 1)).mean(1))
    return np.quantile(values[1] - values[0], [0.025, 0.975])


@pytest.mark.parametrize("chances", [(0.6, 0.3), (0.5, 0.5)], ids=["difference", "none"])
def test_intervals_hold_the_truth_where_plain_percentiles_miss_it(chances):
    """2,000 simulated pairs of runs on 40 people, 5 of them old: a difference, and none."""
    rng, reps, truth = np.random.default_rng(0), 2000, 0.0
    if chances[0] != chances[1]:
        many = [few_old_people(rng, 40, 5, chances) for _ in range(1000)]
        labels = np.concatenate([labels for labels, _ in many])
        a, b = (np.concatenate([runs[k] for _, runs in many]) for k in (0, 1))
        truth = macro_f1_sklearn(labels, b) - macro_f1_sklearn(labels, a)
        assert truth > 0.05
    ours = plain = 0
    for rep in range(reps):
        labels, runs = few_old_people(rng, 40, 5, chances)
        persons = np.repeat(np.arange(40), 7)
        row = comparison.compare(labels, persons, *runs, draws=300, seed=rep)["macro_f1"]
        ours += row["low"] <= truth <= row["high"]
        low, high = plain_percentile(labels, 40, runs, rng)
        plain += low <= truth <= high
    assert ours / reps == pytest.approx(0.95, abs=0.02)
    assert plain / reps < min(0.92, ours / reps - 0.03)


def test_influence_is_the_derivative(rng):
    labels, persons, runs = people_and_runs(rng, 40, [0.8])
    table = comparison.person_counts(labels, persons, 40, runs[0])
    influence, step = comparison.influence_of(table), 1e-3
    assert influence.sum(0) == pytest.approx(0, abs=1e-6)
    for person in (0, 17):
        ends = []
        for sign in (1, -1):
            weights = np.where(persons == person, 1 + sign * step, 1)
            macro = macro_f1_sklearn(labels, runs[0], sample_weight=weights)
            ends.append((macro, accuracy_score(labels, runs[0], sample_weight=weights)))
        slope = (np.array(ends[0]) - ends[1]) / (2 * step)
        assert influence[person, :2] == pytest.approx(slope, abs=1e-5)


def test_pairs_of_conditions_are_drawn_together(rng):
    """One change under two conditions that differ a lot: paired, the conditions cancel."""
    labels, persons, (bad, good) = people_and_runs(rng, 300, [0.2, 1.5])
    better = [np.where(rng.random(len(labels)) < 0.2, labels, run) for run in (bad, good)]
    pooled = comparison.compare(labels, persons, [bad, good], better, conditions=2)["macro_f1"]
    loose = comparison.compare(labels, persons, [bad, good], better)["macro_f1"]
    assert pooled["difference"] == pytest.approx(loose["difference"])
    assert pooled["high"] - pooled["low"] < 0.5 * (loose["high"] - loose["low"])
    with pytest.raises(UserError, match="no pairs of 2 conditions"):
        comparison.compare(labels, persons, [bad, good], better[:1], conditions=2)


def test_seeds_are_no_conditions(rng):
    """A change that helps in one condition and not in the other: more seeds of each tell no more
    about a third. The measures of seeds are averaged, not counted as conditions.
    """
    labels, persons, (run, _) = people_and_runs(rng, 300, [0.5, 0.5])
    helped = np.where(rng.random(len(labels)) < 0.3, labels, run)
    one = comparison.compare(labels, persons, [run] * 2, [helped, run], conditions=2)["macro_f1"]
    six = [run] * 6, [helped] * 3 + [run] * 3
    several = comparison.compare(labels, persons, *six, conditions=2)["macro_f1"]
    counted = comparison.compare(labels, persons, *six, conditions=6)["macro_f1"]
    assert several["difference"] == pytest.approx(one["difference"]) and one["difference"] > 0.05
    assert several["low"] == pytest.approx(one["low"]) and several["p"] == one["p"] > 0.05
    assert counted["low"] > several["low"] and counted["p"] < several["p"] / 2


def coin(rng, labels, chance):
    """Predictions of which each is right with a chance."""
    return np.where(rng.random(len(labels)) < chance, labels, (labels + 1) % CLASSES)


def test_a_large_sample_has_the_t_tests_of_scipy(rng):
    """Accuracies of one photo a person: 95 and 90 % interval, p, one-sided test, power."""
    labels = np.arange(4000) % CLASSES
    a, b = (coin(rng, labels, chance) for chance in (0.7, 0.72))
    row = comparison.compare(labels, np.arange(4000), a, b, draws=20000)["accuracy"]
    gain = (b == labels).astype(float) - (a == labels)
    test, error = stats.ttest_1samp(gain, 0), stats.sem(gain)
    for level, names in ((0.95, ("low", "high")), (0.9, ("low90", "high90"))):
        found = [row[name] for name in names]
        assert found == pytest.approx(test.confidence_interval(level), abs=0.05 * error)
    assert row["p"] == pytest.approx(test.pvalue, rel=0.1, abs=0.002)
    refused = stats.ttest_1samp(gain, row["high90"], alternative="less").pvalue
    assert refused == pytest.approx(0.05, abs=0.005)  # a difference of as much is just refused
    power = stats.norm.sf(stats.norm.ppf(0.975) - row["detectable"] / error)
    assert power == pytest.approx(0.8, abs=0.02)


def test_photos_won_and_lost_are_counted_pair_by_pair(rng):
    labels, persons, runs = people_and_runs(rng, 40, [0.5, 0.6, 1.2, 1.5])
    for conditions, pairs in {2: [(0, 2), (1, 3)], 0: product((0, 1), (2, 3))}.items():
        how = {"draws": 10, "conditions": conditions}
        row = comparison.compare(labels, persons, runs[:2], runs[2:], **how)
        right = [run == labels for run in runs]
        flips = [((right[b] & ~right[a]).sum(), (right[a] & ~right[b]).sum()) for a, b in pairs]
        found = row["macro_f1"]["won"], row["macro_f1"]["lost"]
        assert found == pytest.approx(np.mean(flips, 0))


def figures(difference, half, p, holm=None, sd=0.01):
    """Figures of a comparison; `half`: of its 90 % interval."""
    ends = {"difference": difference, "low90": difference - half, "high90": difference + half}
    return ends | {"p": p, "holm": p if holm is None else holm, "sd_a": None, "sd_b": sd}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (figures(0.05, 0.03, 0.01), "better"),
        (figures(-0.05, 0.03, 0.01), "worse"),
        (figures(-0.01, 0.005, 0.001), "worse, by less than .02"),
        (figures(0.001, 0.018, 0.9), "no difference larger than .02 either way"),
        (figures(0.001, 0.02, 0.9), "undecided"),
        (figures(0.03, 0.02, 0.02, 0.2), "undecided, perhaps better, but one of many comparisons"),
        (figures(0.05, 0.03, 0.01, sd=None), "better (these two runs)"),
    ],
)
def test_a_comparison_has_one_of_three_verdicts(row, words):
    assert comparison.verdict(row, 30) == words
    assert comparison.verdict(row, 29) == "nothing can be told from 29 people"


def seeds_with_a_bias(rng, people, seeds):
    """labels, persons, [seeds of a], [seeds of b], which differ by a bias of each seed alone."""
    labels, persons, _ = people_and_runs(rng, people, [])
    cell = labels.reshape(people, 7)[:, 0]
    groups = []
    for _ in range(2):
        runs = []
        for _ in range(seeds):
            wrong = rng.random((people, 7)) < rng.uniform(0.1, 0.2)
            runs.append(
                np.where(wrong, 6 * PHOTO_MASK + (cell[:, None] + 3) % 6, labels.reshape(people, 7))
            )
        groups.append([run.ravel() for run in runs])
    return labels, persons, *groups


@pytest.mark.parametrize("seeds", [2, 3])
def test_few_seeds_give_intervals_that_can_be_true(seeds):
    """Two or three seeds a side, 40 people: no interval leaves what a score can be, none is wider
    than everything, and they hold the truth."""
    rng, held, widths = np.random.default_rng(0), 0, []
    for rep in range(150):
        labels, persons, a, b = seeds_with_a_bias(rng, 40, seeds)
        row = comparison.compare(labels, persons, a, b, draws=200, seed=rep)["macro_f1"]
        held += row["low"] <= 0 <= row["high"]
        widths.append(row["high"] - row["low"])
        assert -1 <= row["low"] <= row["high"] <= 1
        one = comparison.intervals(labels, persons, a, draws=200, seed=rep)
        assert all(0 <= low <= high <= 1 for _, low, high in one.values())
    assert held / 150 > 0.9 and np.mean(np.array(widths) > 1) < 0.1


def test_what_persons_explain_is_no_chance_of_seeds(rng):
    """Seeds of one skill differ since each errs on persons of its own: no chance beside that."""
    parts = []
    for _ in range(40):
        labels, persons, runs = people_and_runs(rng, 300, [0.8] * 6)
        groups = comparison.bootstrap(labels, persons, [runs[:3], runs[3:]], 1, 0)
        parts.append(comparison._seed_part(groups)[:2])
    variance, spread = np.mean(parts, 0)
    assert (variance[:2] < 0.5 * spread[:2]).all()
