import base64
from xml.etree import ElementTree

import pandas as pd
import pytest
from matplotlib.colors import to_hex

from reporting import figures


def test_figures_are_pictures_with_a_title_and_the_same_twice(runs_drawn):
    people = runs_drawn[1].frame.drop_duplicates("person")
    rows = pd.DataFrame({"run": ["<x>"], "difference": 0.1, "low": 0.0, "high": 0.2, "verdict": ""})
    assert figures.age_histogram(people) == figures.age_histogram(people)
    source, title = figures.forest(rows, "a")
    kind, coded = source.split(",")
    svg = base64.b64decode(coded).decode()
    assert kind == "data:image/svg+xml;base64" and title == "Did it help?"
    assert "<x>" in "".join(ElementTree.fromstring(svg).itertext())


@pytest.mark.parametrize(
    ("verdict", "colour"), [("better, by less than .02", "GREEN"), ("worse", "RED"), ("un", "BLUE")]
)
def test_colours_say_what_the_words_say(verdict, colour):
    """Also where an interval leaves zero out, but many comparisons or few people make it luck."""
    rows = pd.DataFrame({"run": ["x"], "difference": 0.1, "low": 0.01, "high": 0.2})
    source = figures.forest(rows.assign(verdict=verdict), "a")[0]
    svg = base64.b64decode(source.partition(",")[2]).decode()
    shown = {name for name in ("GREEN", "RED", "BLUE") if to_hex(getattr(figures, name)) in svg}
    assert shown == {colour}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", ["x$^$y", "실험"])
def test_a_run_may_have_any_name(name):
    rows = pd.DataFrame({"run": [name], "difference": 0.1, "low": 0.0, "high": 0.2, "verdict": ""})
    svg = base64.b64decode(figures.forest(rows, name)[0].partition(",")[2]).decode()
    texts = list(ElementTree.fromstring(svg).itertext())
    assert name in texts and f"difference of macro F1 from {name}, 95 % interval" in texts


def test_intervals_and_shares_are_drawn_where_they_are(monkeypatch):
    monkeypatch.setattr(figures, "_picture", lambda figure: figure.axes[0])
    rows = pd.DataFrame({"run": ["x", "y"], "difference": [0.1, -0.2], "verdict": ""})
    axes = figures.forest(rows.assign(low=[0.05, -0.3], high=[0.2, -0.1]), "a")
    lines, points = axes.collections
    assert [part[:, 0].tolist() for part in lines.get_segments()] == [[0.05, 0.2], [-0.3, -0.1]]
    assert points.get_offsets().tolist() == [[0.1, 0], [-0.2, 1]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y"]
    wrong = {f"wrong_{name}": [0.1, 0.4, 0.5] for name in ("mask", "gender", "age")}
    table = pd.DataFrame({"age": [20, 21, 30], "images": [7, 14, 7]} | wrong)
    smooth = [line for line in figures.errors_by_age(table).lines if line.get_lw() == 2]
    assert [line.get_label() for line in smooth] == ["age", "gender", "mask"]
    assert all(line.get_ydata() == pytest.approx([0.3, 0.3, 0.5]) for line in smooth)
