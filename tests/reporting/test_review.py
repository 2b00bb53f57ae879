"""The page in a real browser: the label review, and tables on wide and narrow screens."""

import json
import time

import browser
import numpy as np
import pandas as pd
import pytest
from helpers import MISLABELLED, draw_data, draw_run

import report
import train
from common.files import HOME, read_rows
from dataset import read_train
from training.run import read_inputs

HOSTILE = """000007_<img src=x onerror="document.title='taken'">'&amp;,=_female_58"""
STATE = "return document.querySelector('output').textContent"
CHECKED = "return [...document.querySelectorAll('#review :checked')].map(radio => radio.value)"
COUNT = "return document.querySelectorAll(arguments[0]).length"
DOWN, UP = "\ue015", "\ue013"  # arrow keys in WebDriver
# Tables and figures that are neither wholly seen nor scrolled by a bar that takes up room.
CUT = """
const page = document.documentElement, cut = page.scrollWidth > page.clientWidth ? ['page'] : [];
let scrolled = 0;
for (const part of document.querySelectorAll('details')) part.open = true;
for (const part of document.querySelectorAll('table, figure img')) {
  const box = part.closest('.scroll');
  const hidden = box ? box.scrollWidth - box.clientWidth : 1;
  const bar = box && ['auto', 'scroll'].includes(getComputedStyle(box).overflowX)
    ? box.offsetHeight - box.clientHeight : 0;
  if (hidden > 0 && bar < 5) cut.push(part.outerHTML.slice(0, 200));
  scrolled += hidden > 0;
}
return [cut, scrolled];
"""

pytestmark = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "found")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(Table, path of the page) of two runs, whose models doubt a person with a HOSTILE name."""
    root = tmp_path_factory.mktemp("review")
    data = draw_data(root, broken=False)
    people = pd.read_csv(data / "train.csv", dtype=str)
    for folder in (data / "images", data / "mattes" / "rembg"):
        (folder / people.path[7]).rename(folder / HOSTILE)
    people.loc[7, "path"] = HOSTILE
    people.to_csv(data / "train.csv", index=False)
    table = read_train(data)
    assert MISLABELLED[7] == "gender" and table.frame.person.unique()[7] == HOSTILE
    skills = {"a": 1.5, "b": 4.0}
    runs = [draw_run(root / name, table.frame, skill) for name, skill in skills.items()]
    words = ["--data_dir", data, "--model_dir", *runs, "--out", root / "report.html"]
    report.main([*map(str, words), "--cam_images", "0"])
    return table, root / "report.html"


def item(person, field):
    """CSS of a label to review."""
    return f"fieldset[data-id={json.dumps(person)}][data-field={json.dumps(field)}]"


def radio(person, field, value):
    return f"{item(person, field)} input[value={json.dumps(value)}]"


def download(page, folder):
    page.click(".bar button:nth-of-type(1)")
    path, end = folder / "reviewed_fixes.csv", time.monotonic() + 10
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    return path


def test_decisions_outlive_a_reload_and_train(written, tmp_path, capsys):
    table, path = written
    frame, aged = table.frame, table.frame.person.unique()[22]
    photo = "document.querySelector('fieldset[data-field^=\"mask:\"]').dataset"
    with browser.opened(tmp_path) as page:
        page.open(path)
        assert page.run("return [document.title, document.images.length > 100]") == [
            "Report on 2 runs", True,
        ]  # fmt: skip
        assert page.run(STATE) == "0 reviewed: 0 keep, 0 fix, 0 drop."
        assert page.run("return document.querySelector('.bar button').disabled")
        assert page.run(COUNT, item(HOSTILE, "gender") + " img") == 7
        page.click(radio(HOSTILE, "gender", "male"))
        page.press(radio(HOSTILE, "gender", "male"), DOWN)
        assert page.run(STATE) == "1 reviewed: 0 keep, 0 fix, 1 drop."
        page.press(radio(HOSTILE, "gender", "drop"), UP)
        assert page.run(CHECKED) == ["male"]
        page.click(radio(aged, "age", "drop"))
        kept = page.run(f"return {{...{photo}}}")
        page.click(radio(kept["id"], kept["field"], kept["from"]))
        chosen = page.run(CHECKED)
        page.open(path)
        assert page.run(CHECKED) == chosen and sorted(chosen) == sorted(
            ["male", "drop", kept["from"]]
        )
        assert page.run(STATE) == "3 reviewed: 1 keep, 1 fix, 1 drop."
        fixes = download(page, tmp_path)
        page.click(".bar button:nth-of-type(2)")
        page.do("alert/accept")
        page.open(path)
        assert page.run(STATE).startswith("0 reviewed") and page.run(CHECKED) == []
    header = (HOME / "label_fixes.csv").read_text().splitlines()[0]
    assert fixes.read_text().splitlines()[0] == header
    assert {row["id"] for _, row in read_rows(fixes, ("id",))} == {HOSTILE, aged}
    words = ["--label_fixes", str(fixes), "--k_fold", "3", "--data_dir", str(table.root.parent)]
    *_, labels = read_inputs(train.parse_args(words))
    fixed, dropped = (np.flatnonzero(frame.person == name) for name in (HOSTILE, aged))
    assert np.flatnonzero(labels.targets["gender"] != frame.gender).tolist() == fixed.tolist()
    rows = np.arange(len(frame))
    assert labels.rows(rows, ("mask",)).tolist() == np.setdiff1d(rows, dropped).tolist()
    assert "7 of 14 photos train, 7 dropped" in capsys.readouterr().out


@pytest.mark.parametrize(("width", "scrolled"), [(1400, 0), (420, 5)])
def test_no_table_is_cut_without_a_scrollbar(written, tmp_path, width, scrolled):
    with browser.opened(tmp_path, width) as page:
        page.open(written[1])
        cut, count = page.run(CUT)
        assert cut == [] and count >= scrolled
