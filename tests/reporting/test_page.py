import pandas as pd

from reporting import page, runs


def test_a_table_is_linked_and_names_its_runs_as_they_are():
    known = runs.Evidence(None, None, 0, [], None, None, folder="a #1_tables")
    shown = pd.DataFrame({"class": ["old"], "my_run": [0.5]})
    text = page.keep(known, "per_class_f1", shown, "F1", kind="heat")
    assert ">my_run<" in text and 'href="a%20%231_tables/per_class_f1.csv"' in text
    assert known.tables == {"per_class_f1": shown}
