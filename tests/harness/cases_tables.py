"""Tables: train.csv, info.csv, label fixes, the space of a search."""

import json

from harness.case import Case
from harness.engine import error, error_or_works, works
from harness.folder import all_of, cell, change, fifo, lines, link, mkdir, remove, write

CASES = []
TRAIN, INFO = "data/train/train.csv", "data/eval/info.csv"
LISTED = "268134cb0e5d9ef237a1aa559a732b20516d9b5f.jpg"
FIXES = "id,field,from,to,confidence,note\n000001_male_Asian_55,gender,male,female,sure,\n"
FIXED = "--label_fixes fixes.csv"


def add(name, command, argv, prepare, expected, **more):
    CASES.append(Case(f"tables: {name}", "tables", command, argv, prepare, expected, **more))


def without(column):
    """Leaves a column out."""

    def edit(rows):
        index = rows[0].split(",").index(column)
        cut = [row.split(",") for row in rows]
        return [",".join(row[:index] + row[index + 1 :]) for row in cut]

    return edit


# ---- any table that is no table

TABLES = {  # {file: (command, argv, a column that it must have)}
    TRAIN: ("train", "", "path"),
    INFO: ("inference", "", "ImageID"),
    "fixes.csv": ("train", FIXED, "field"),
}
NO_TABLES = {
    "empty": lambda path: write(path, b""),
    "a header alone": lambda path: lines(path, lambda rows: rows[:1]),
    "without its header": lambda path: lines(path, lambda rows: rows[1:]),
    "binary": lambda path: write(path, bytes(range(256)) * 9),
    "of NUL bytes": lambda path: write(path, bytes(4096)),
    "UTF-16": lambda path: change(path, lambda data: data.decode().encode("utf-16")),
    "with semicolons": lambda path: change(path, lambda data: data.replace(b",", b";")),
    "an Excel file": lambda path: write(path, b"PK\x03\x04" + bytes(500)),
    "with one row too short": lambda path: lines(
        path, lambda r: [r[0], r[1].split(",")[0], *r[2:]]
    ),
    "with a cell of 200,000 letters": lambda path: lines(
        path, lambda r: [r[0], "x" * 200_000 + r[1][r[1].find(",") :], *r[2:]]
    ),
    "with an open quote": lambda path: lines(path, lambda r: [r[0], '"' + r[1], *r[2:]]),
}
for file, (command, argv, column) in TABLES.items():
    given = write("fixes.csv", FIXES) if file == "fixes.csv" else lambda folder: None
    name = file.rsplit("/", 1)[-1]
    for how, spoil in NO_TABLES.items():
        add(
            f"{name} is {how}",
            command,
            argv,
            all_of(given, spoil(file)),
            error(name) if (file, how) != (INFO, "with one row too short") else works(),
        )
    add(f"{name} without {column}", command, argv, all_of(given, lines(file, without(column))),
        error(name, column))  # fmt: skip
    for how, spoil in {"a folder": mkdir, "a FIFO": fifo,
                       "a dangling link": lambda path: link(path, "nowhere")}.items():  # fmt: skip
        if file == "fixes.csv" or "answers" in file:
            add(f"{name} is {how}", command, argv, all_of(given, spoil(file)), error(name))
    if file in (TRAIN, INFO):
        for how, spoil in {"a folder": mkdir, "a FIFO": fifo, "missing": remove}.items():
            add(f"{name} is {how}", command, argv, spoil(file), error(name))
    fine = {
        "with a BOM": lambda data: b"\xef\xbb\xbf" + data,
        "with CRLF": lambda data: data.replace(b"\n", b"\r\n"),
        "without its last line end": lambda data: data.rstrip(b"\n"),
        "with one more column": lambda data: data.replace(b"\n", b",x\n"),
        "with empty lines": lambda data: data.replace(b"\n", b"\n\n"),
    }
    for how, edit in fine.items():
        add(f"{name} {how} works", command, argv, all_of(given, change(file, edit)), works())


# ---- cells

for column, values in {
    "path": ("", "../x", "/etc", "a/../../b", "C:\\x", "..\\x", "000003_male_Asian_18"),
    "gender": ("", "x", "1", "femail"),
    "age": ("", "abc", "-1", "200", "nan", "inf", "30.5", "1e9", "٣٤x"),
    "id": ("",),
}.items():
    for value in values:
        add(f"train.csv {column} is {value!r}", "train", "", cell(TRAIN, 2, column, value),
            error_or_works("train.csv line [234]",
                "000003|leaves|train.csv" if {value, *value} & {"000003_male_Asian_18", "/", "\\"}
                else column))  # fmt: skip
add("train.csv gender in capitals works", "train", "", cell(TRAIN, 2, "gender", "MALE"), works())
add("train.csv age with .0 works", "train", "", cell(TRAIN, 2, "age", "55.0"), works())
add("train.csv one person is left", "train", "", lines(TRAIN, lambda rows: rows[:2]),
    error("1 people|1 person|nobody"))  # fmt: skip
add("train.csv two people are left", "train", "--k_fold 2", lines(TRAIN, lambda r: r[:3]),
    works())  # fmt: skip
add("train.csv lists none that is there", "train", "",
    lines(TRAIN, lambda r: [r[0], "1,male,x,30,nosuch"]),
    error("none of the photos"))  # fmt: skip
for value in (
    "",
    "../../etc/passwd",
    "/etc/passwd",
    "a/../../b.jpg",
    "..\\x.jpg",
    "nosuch.jpg",
    ".",
):
    add(f"info.csv ImageID is {value!r}", "inference", "", cell(INFO, 2, "ImageID", value),
        error("info.csv line 2|nosuch.jpg|ImageID"))  # fmt: skip
add("info.csv lists a photo twice", "inference", "", lines(INFO, lambda r: [*r, r[1]]),
    error_or_works(LISTED))  # fmt: skip
add("info.csv alone with a column works", "inference", "",
    lines(INFO, lambda rows: [r.split(",")[0] for r in rows]), works())  # fmt: skip
for column, values in {
    "id": ("",), "field": ("", "hair", "mask:nose", "age:mask1"), "from": ("", "x", "female"),
    "to": ("", "x", "male"), "confidence": ("", "maybe", "2", "nan", "-1"),
}.items():  # fmt: skip
    for value in values:
        expected = (
            works("given otherwise")
            if (column, value) == ("from", "female")
            else error("fixes.csv line 2")
        )
        if (column, value) == ("from", "female"):
            expected = error("fixes.csv line 2", "both")
        add(f"fixes.csv {column} is {value!r}", "train", FIXED,
            all_of(write("fixes.csv", FIXES), cell("fixes.csv", 2, column, value)),
            expected)  # fmt: skip
add("fixes.csv works", "train", FIXED, write("fixes.csv", FIXES), works("1 fix"))
add("fixes.csv of nobody works", "train", FIXED,
    all_of(write("fixes.csv", FIXES), cell("fixes.csv", 2, "id", "x")),
    works("no such person"))  # fmt: skip
add("fixes.csv contradicts itself", "train", FIXED,
    write("fixes.csv", FIXES + "000001_male_Asian_55,age,55,20,sure,\n"
        "000001_male_Asian_55,age,55,70,sure,\n"),
    error("fixes.csv line 4", "line 3"))  # fmt: skip


# ---- the space of a search

SPACES = {
    "no object": [1], "empty": {}, "an unknown flag": {"nosuch": {"low": 1, "high": 2}},
    "no bounds": {"lr": {}}, "one bound": {"lr": {"low": 1}},
    "the wrong way round": {"lr": {"low": 2, "high": 1}},
    "the logarithm of 0": {"lr": {"low": 0, "high": 1, "log": True}},
    "text bounds": {"lr": {"low": "a", "high": "b"}}, "no choices": {"lr": {"choices": []}},
    "lists as choices": {"lr": {"choices": [[1, 2]]}}, "null": {"lr": None}, "text": {"lr": "x"},
    "an unknown key": {"lr": {"low": 1, "high": 2, "base": 3}},
    "bounds and choices": {"lr": {"low": 1, "high": 2, "choices": [1]}},
    "an attribute without --split_heads": {"lr age": {"low": 1e-4, "high": 1e-3}},
    "an unknown attribute": {"lr hair": {"low": 1e-4, "high": 1e-3}},
    "a value that the flag refuses": {"lr": {"choices": [-1]}},
    "a bound out of range": {"drop_rate": {"low": 0, "high": 5}},
    "a runtime flag": {"device": {"choices": ["cpu"]}}, "the seed": {"seed": {"choices": [1]}},
    "whole numbers with halves": {"epochs": {"low": 1.5, "high": 2.5, "int": True}},
    "true for a number": {"lr": {"low": True, "high": 2}},
    "log as text": {"lr": {"low": 1e-3, "high": 1, "log": "yes"}},
    "a class": {"__class__": {"choices": [1]}},
}  # fmt: skip
for name, space in SPACES.items():
    add(f"the space has {name}", "tune", "", write("space.json", json.dumps(space)),
        error("space.json"), changes=("runs/*",))  # fmt: skip
for name, data in {"cut off": b'{"lr": {"low"', "binary": b"\xff\xfe\x00", "empty bytes": b"",
                   "NaN": b'{"lr": {"low": NaN, "high": 1}}', "a lone brace": b"{",
                   "Infinity": b'{"lr": {"low": 1e-3, "high": Infinity}}',
                   "deep": b"[" * 50_000}.items():  # fmt: skip
    add(f"the space is {name}", "tune", "", write("space.json", data), error("space.json"))
