import base64
from xml.etree import ElementTree

import pandas as pd

from reporting import figures


def test_figures_are_pictures_with_a_title_and_the_same_twice(runs_drawn):
    people = runs_drawn[1].frame.drop_duplicates("person")
    rows = pd.DataFrame({"run": ["<x>"], "difference": 0.1, "low": 0.0, "high": 0.2})
    assert figures.age_histogram(people) == figures.age_histogram(people)
    source, title = figures.forest(rows, "a")
    kind, coded = source.split(",")
    svg = base64.b64decode(coded).decode()
    assert kind == "data:image/svg+xml;base64" and title == "Did it help?"
    assert "<x>" in "".join(ElementTree.fromstring(svg).itertext())
