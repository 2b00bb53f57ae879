"""The survey of photos, against plain loops."""

import numpy as np
import pandas as pd

from reporting import data_section


def test_broken_photos_are_told(runs_drawn):
    _, table = runs_drawn
    files = data_section.survey(table.root, table.frame)
    assert list(files.image) == list(table.frame.image)
    [broken] = files[files.error != ""].itertuples()
    assert broken.error == "is not a readable image" and broken.hash is None
    assert files["hash"].notna().sum() == 251


def test_look_alikes_are_a_plain_loop():
    rng = np.random.default_rng(3)
    hashes = {f"p{k}": rng.random(256) < 0.5 for k in range(40)}
    hashes["copy"] = hashes["p7"] ^ (np.arange(256) < 11)
    ordered = pd.Series({person: hashes[person] for person in sorted(hashes)})
    found = data_section.look_alikes(ordered, limit=115)
    expected = sorted(
        (int((hashes[a] != hashes[b]).sum()), a, b)
        for a in hashes
        for b in hashes
        if a < b and (hashes[a] != hashes[b]).sum() <= 115
    )
    assert len(expected) > 5 and found.bits[0] == 11
    assert sorted(zip(found.bits, found.a, found.b, strict=True)) == expected
