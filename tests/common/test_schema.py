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
GOOD |= {"inner": {"count": 3, "more": {"k": [{}], "l?": []}}, "unknown": [1]}


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
        ({"name": 3}, "name is 3, which does not fit; restore it"),
        ({"kind": "c"}, "kind is 'c', which"),
        ({"kind": ["a"]}, "kind is a list, which"),
        ({"size": [8]}, "size is a list, which"),
        ({"size": [8, 7]}, r"size\[1\] is 7, which"),
        ({"size": [8, 9.0]}, r"size\[1\] is 9.0, which"),
        ({"size": {}}, "size is an object, which"),
        ({"score": math.nan}, "score is nan, which"),
        ({"score": True}, "score is True, which"),
        ({"score": "0.5"}, "score is '0.5', which"),
        ({"epoch": [1, -1]}, r"epoch\[1\] is -1, which"),
        ({"epoch": -1}, "epoch is -1, which"),
        ({"on": 1}, "on is 1, which"),
        ({"inner": 5}, "inner is 5, which"),
        ({"inner": {"count": None}}, "inner.count is null, which"),
        ({"inner": {}}, "inner.count is missing"),
        ({"inner": {"count": 1, "note": 2}}, "inner.note is 2, which"),
        ({"inner": {"count": 1, "more": {"k?": 3}}}, r"inner.more.k\? is 3, which"),
        ({"inner": {"count": 1, "more": {"k": [3]}}}, r"inner.more.k\[0\] is 3, which"),
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
