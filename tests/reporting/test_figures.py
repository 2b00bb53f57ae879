import re
from xml.etree import ElementTree

import pandas as pd

from reporting import figures


def test_figures_take_the_ink_of_the_page(runs_drawn):
    people = runs_drawn[1].frame.drop_duplicates("person")
    rows = pd.DataFrame({"run": ["<x>"], "difference": 0.1, "low": 0.0, "high": 0.2})
    first, second = figures.age_histogram(people), figures.forest(rows, "a")
    for svg in (first, second):
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img" and root.get("aria-label")
        assert "currentColor" in svg and figures.INK not in svg
    ids = [set(re.findall(r' id="([^"]*)"', svg)) for svg in (first, second)]
    assert ids[0] and not ids[0] & ids[1]
