"""The code of the 18 classes against loops over its definition."""

from itertools import product

import numpy as np
import pytest

import labels


def random_probs(rng, n, classes):
    probs = rng.random((n, classes))
    return probs / probs.sum(1, keepdims=True)


def test_the_code_counts_through_mask_then_gender_then_age():
    for label, (mask, gender, age) in enumerate(product(range(3), range(2), range(3))):
        assert labels.encode(mask, gender, age) == label
        assert labels.decode(label) == {"mask": mask, "gender": gender, "age": age}
        words = (labels.ATTRIBUTES[n][c] for n, c in labels.decode(label).items())
        assert labels.CLASS_NAMES[label] == " ".join(words)
    assert len(labels.CLASS_NAMES) == labels.CLASSES == label + 1


def test_arrays_go_there_and_back():
    everything = np.arange(18).reshape(3, 6)
    assert (labels.encode(**labels.decode(everything)) == everything).all()


def test_heads_have_a_logit_for_each_value():
    assert labels.HEADS == {"label": 18, "mask": 3, "gender": 2, "age": 3}


def test_join_is_the_product_of_the_attributes():
    rng = np.random.default_rng(0)
    probs = {name: random_probs(rng, 5, labels.HEADS[name]) for name in labels.ATTRIBUTES}
    joined = labels.joint(probs)
    assert joined.shape == (5, 18)
    for n, mask, gender, age in product(range(5), range(3), range(2), range(3)):
        expected = probs["mask"][n, mask] * probs["gender"][n, gender] * probs["age"][n, age]
        assert joined[n, 6 * mask + 3 * gender + age] == pytest.approx(expected, abs=1e-15)
    np.testing.assert_allclose(joined.sum(1), 1)


def test_join_leaves_joint_probabilities_alone():
    probs = random_probs(np.random.default_rng(1), 4, 18)
    assert labels.joint({"label": probs}) is probs


def test_marginals_sum_over_the_other_attributes():
    probs = random_probs(np.random.default_rng(2), 4, 18)
    found = labels.marginals(probs)
    for name, values in labels.ATTRIBUTES.items():
        expected = np.zeros((4, len(values)))
        for label in range(18):
            expected[:, labels.decode(label)[name]] += probs[:, label]
        np.testing.assert_allclose(found[name], expected)


def test_marginals_undo_join():
    rng = np.random.default_rng(3)
    probs = {name: random_probs(rng, 7, labels.HEADS[name]) for name in labels.ATTRIBUTES}
    for name, found in labels.marginals(labels.joint(probs)).items():
        np.testing.assert_allclose(found, probs[name])


def test_combine_takes_classes_or_the_three_attributes():
    truth = np.array([0, 5, 17, 8])
    assert (labels.combine({"label": truth}) == truth).all()
    small = {name: codes.astype(np.int8) for name, codes in labels.decode(truth).items()}
    shuffled = {name: small[name] for name in ("age", "mask", "gender")}
    combined = labels.combine(shuffled)
    assert (combined == truth).all() and combined.dtype == np.int64
