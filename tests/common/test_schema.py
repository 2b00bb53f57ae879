"""The shape of JSON values: what fits, and what the message names."""

import json
import math

import pytest

from common.errors import UserError
from common.schema import COUNT, SHARE, Number, check

SHAPE = {
    "name": str,
    "kind": {"a", "b"},
    "size": [Number(int, 8, 4096), 2],
    "score": SHARE,
    "epoch": (COUNT, [COUNT], None),
    "on": bool,
    "inner": {"count": COUNT, "note?": (str, None), "more?": {str: [dict]}},
}
GOOD = {"name": "x", "kind": "a", "size": [8, 9], "score": 1, "epoch": None, "on": False}
GOOD |= {"inner": {"count": 3, "more": {"k": [{}]}}, "unknown": [1]}


def test_what_fits_is_returned_as_it_is():
    assert check(GOOD, SHAPE, "a.json") is GOOD
    for epoch in (0, [], [1, 2]):
        check(GOOD | {"epoch": epoch}, SHAPE, "a.json")


@pytest.mark.parametrize("key", [key for key in GOOD if key != "unknown"])
def test_a_missing_key_is_named(key):
    with pytest.raises(UserError, match=f"^a.json: {key} is missing"):
        check({k: v for k, v in GOOD.items() if k != key}, SHAPE, "a.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 3}, "name is 3, not text"),
        ({"kind": "c"}, "kind is 'c', not one of a, b"),
        ({"kind": ["a"]}, "kind is a list, not one of a, b"),
        ({"size": [8]}, "size is a list, not a list of 2"),
        ({"size": [8, 7]}, r"size\[1\] is 7, not a whole number of 8 to 4096"),
        ({"size": [8, 9.0]}, r"size\[1\] is 9.0, not a whole number"),
        ({"size": {}}, "size is an object, not a list of 2"),
        ({"score": math.nan}, "score is nan, not a number of 0 to 1"),
        ({"score": True}, "score is True, not a number"),
        ({"score": "0.5"}, "score is '0.5', not a number"),
        ({"epoch": -1}, "epoch is -1, not a whole number .* or a list or null"),
        ({"on": 1}, "on is 1, not true or false"),
        ({"inner": 5}, "inner is 5, not an object"),
        ({"inner": {"count": None}}, "inner.count is null, not a whole number"),
        ({"inner": {}}, "inner.count is missing"),
        ({"inner": {"count": 1, "note": 2}}, "inner.note is 2, not text or null"),
        ({"inner": {"count": 1, "more": {"k": [3]}}}, r"inner.more.k\[0\] is 3, not an object"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    with pytest.raises(UserError, match=f"^a.json: {words}") as caught:
        check(GOOD | change, SHAPE, "a.json")
    assert "\n" not in str(caught.value)


def test_any_json_value_in_any_place_is_a_fit_or_a_user_error():
    values = [None, True, 0, -1, 1e999, "", "x" * 1000, [], [[]], {}, {"": {}}, 10**400]
    for key in GOOD:
        for value in values:
            try:
                check(json.loads(json.dumps(GOOD | {key: value})), SHAPE, "a.json")
            except UserError as error:
                assert str(error).startswith(f"a.json: {key}") and len(str(error)) < 200
