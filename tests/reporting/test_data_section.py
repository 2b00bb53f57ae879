"""The survey of photos and mattes, against plain loops."""

import cv2
import numpy as np

from reporting import data_section


def test_means_are_those_of_whole_photos(runs_drawn):
    _, table = runs_drawn
    files, means, _ = data_section.survey(table.root, table.frame)
    assert (files.kind == "JPEG").sum() == 251 and (files.error != "").sum() == 1
    photos = [
        cv2.resize(cv2.imread(str(table.root / image)), (96, 128), interpolation=cv2.INTER_AREA)
        for image in table.frame.image[table.frame.label == 17]
    ]
    assert np.abs(np.mean(photos, 0)[..., ::-1] - means[17]).max() <= 0.51


def test_look_alikes_are_a_plain_loop():
    rng = np.random.default_rng(3)
    hashes = {f"p{k}": rng.random(256) < 0.5 for k in range(40)}
    hashes["copy"] = hashes["p7"] ^ (np.arange(256) < 11)
    found = data_section.look_alikes(hashes, limit=115)
    expected = sorted(
        (int((hashes[a] != hashes[b]).sum()), a, b)
        for a in hashes
        for b in hashes
        if a < b and (hashes[a] != hashes[b]).sum() <= 115
    )
    assert len(expected) > 5 and found.bits[0] == 11
    assert sorted(zip(found.bits, found.a, found.b, strict=True)) == expected


def test_methods_of_mattes_come_best_first(tmp_path):
    for name in ("grabcut", "own", "rembg", ".cache", "another"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").touch()
    assert data_section.matte_methods(tmp_path) == ["rembg", "grabcut", "another", "own"]
    assert data_section.matte_methods(tmp_path / "nothing") == []
