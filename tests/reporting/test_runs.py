"""Groups of runs, and the tables of evidence about them."""

import numpy as np
import pytest
from helpers import draw_run

import options
from common.errors import UserError
from experiment import reader
from reporting import runs


def test_holm_is_the_definition():
    p = np.array([0.03, 0.01, 0.04, 0.5])
    order, running, expected = np.argsort(p), 0.0, np.zeros(4)
    for step, k in enumerate(order):
        running = max(running, (4 - step) * p[k])
        expected[k] = min(1, running)
    assert runs.holm(p).tolist() == pytest.approx(expected)
    assert runs.holm([0.02]).tolist() == pytest.approx([0.02]) and len(runs.holm([])) == 0


def test_pairs_that_differ_in_one_option():
    def group(name, files=(), **options):
        options = {flag: {"": value} for flag, value in options.items()} | {"seed": hash(name)}
        config = {"layout": "joint", "data": {"files": dict(files)}, "options": options}
        return runs.Group(name, [reader.FinishedRun(None, config, None)])

    one, two = group("one", bg="none", lr=1e-3), group("two", bg="rembg", lr=1e-3)
    three, four = group("three", bg="rembg", lr=1e-4), group("four", bg="none", lr=1e-4)
    pairs = runs.matched_pairs([one, two, three, four])
    assert pairs == {
        ("bg", "none", "rembg"): [(one, two), (four, three)],
        ("lr", "0.001", "0.0001"): [(one, four), (two, three)],
    }
    # A flag that came later has its usual value, and a file is what it held.
    five, more = group("five", bg="none", lr=1e-3, ema=0), {"label_fixes": {"": "fixes.csv"}}
    six, seven = (group("six", {"label_fixes": digest * 16}, **more) for digest in "ab")
    assert not runs.differing([one, five]) and runs.differing([six, seven]) == ["label_fixes"]
    assert len(runs.distinct([one, five, six, seven])) == 3


def test_options_are_shown_as_they_are_typed():
    assert options.text_of({"": [128, 96], "age": 1e-4}) == "128 96 age=0.0001"
    assert options.text_of(False) == "off" and options.text_of(["a", 3]) == "a 3"


def test_seeds_of_a_configuration_differ_in_the_seed_alone(runs_drawn):
    root, _ = runs_drawn
    with pytest.raises(UserError, match=r"lr is 0\.001 and 0\.0003"):
        runs.read_groups([f"{root / 'a'},{root / 'b'}"])
    with pytest.raises(UserError, match="two have the same seed; give one of them"):
        runs.read_groups([f"{root / 'a'},{root / 'a'}"])
    with pytest.raises(UserError, match=r"a2 twice; give each run once"):
        runs.read_groups([f"{root / 'a'},{root / 'a2'}", str(root / "a2")])
    assert len(runs.read_groups([f"{root / 'a'},{root / 'a2'}"])[0].runs) == 2


def test_seeds_of_an_average_are_averages_of_the_same_runs(runs_drawn, tmp_path):
    _, table = runs_drawn
    for seed, names in {1: ["a-s1", "b-s1"], 2: ["a-s2", "b-s2"], 3: ["a-s3", "c-s3"]}.items():
        draw_run(tmp_path / f"mean-s{seed}", table.frame, 1, seed, ensemble=names)
    one, two, other = (str(tmp_path / f"mean-s{seed}") for seed in (1, 2, 3))
    assert len(runs.read_groups([f"{one},{two}"])[0].runs) == 2
    with pytest.raises(UserError, match="not seeds of one configuration, layout is"):
        runs.read_groups([f"{one},{other}"])
    for seed, names in {4: ["a-s1=1", "b-s1=2.5"], 5: ["a-s2=1", "b-s2=3.5"]}.items():
        draw_run(tmp_path / f"mean-s{seed}", table.frame, 1, seed, ensemble=names)
    with pytest.raises(UserError, match="not seeds of one configuration, layout is"):
        runs.read_groups([f"{tmp_path / 'mean-s4'},{tmp_path / 'mean-s5'}"])


def test_a_run_given_twice_is_named(runs_drawn):
    root, _ = runs_drawn
    for again in "a", "b/../a":
        with pytest.raises(UserError, match=f"names {root / 'a'} twice"):
            runs.read_groups([str(root / name) for name in ("a", again, "b")])


def test_the_folder_of_now_is_called_by_its_name(runs_drawn, monkeypatch):
    monkeypatch.chdir(runs_drawn[0] / "a")
    assert [group.name for group in runs.read_groups([".", "../b"])] == ["a", "b"]
