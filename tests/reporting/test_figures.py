import re
from xml.etree import ElementTree

from reporting import figures


def test_figures_take_the_ink_of_the_page(runs_drawn):
    people = runs_drawn[1].frame.drop_duplicates("person")
    first, second = figures.age_histogram(people), figures.forest([("x", 0.1, 0, 0.2)], "a", "<t>")
    for svg in (first, second):
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img" and root.get("aria-label")
        assert "currentColor" in svg and figures.INK not in svg
    ids = [set(re.findall(r' id="([^"]*)"', svg)) for svg in (first, second)]
    assert ids[0] and not ids[0] & ids[1]
