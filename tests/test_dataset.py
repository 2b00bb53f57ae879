"""The competition's tables with all their quirks, and folds of any table of people."""

import csv
import shutil
from collections import Counter

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers import PHOTOS
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import StratifiedKFold

import dataset
from common.errors import UserError
from photos import reading

SEVEN = dict(zip(PHOTOS, [0, 0, 0, 0, 0, 1, 2], strict=True))  # their codes of mask
HEADER = ["id", "gender", "race", "age", "path"]


def person(number, gender="male", age=25, suffix=""):
    """One row of train.csv."""
    name = f"{number:06d}{suffix}"
    return [name, gender, "Asian", str(age), f"{name}_{gender}_Asian_{age}"]


def competition(home, rows, extensions=(".jpg",)):
    """Writes a train layout whose photos are empty files, which read_train does not open."""
    for row in rows:
        folder = home / "images" / row[-1]
        folder.mkdir(parents=True)
        for i, stem in enumerate(SEVEN):
            (folder / f"{stem}{extensions[i % len(extensions)]}").touch()
    write_table(home, rows)
    return home


def write_table(home, rows, header=HEADER):
    home.mkdir(exist_ok=True)
    with (home / "train.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def test_the_codes_of_every_photo(tmp_path):
    ages = [18, 29, 30, 59, 60]
    rows = [person(i, ("male", "female")[i % 2], ages[i % 5]) for i in range(10)]
    table = dataset.read_train(competition(tmp_path / "train", rows))
    assert list(table.frame) == [
        *("image", "person", "id", "age", "mask", "gender", "age_group", "label")
    ]
    expected = {}
    for name, gender, _, age, path in rows:
        group = 0 if int(age) < 30 else 1 if int(age) < 60 else 2
        for stem, mask in SEVEN.items():
            codes = (mask, int(gender == "female"), group)
            expected[f"{path}/{stem}.jpg"] = (path, name, int(age), *codes)
    assert len(table.frame) == len(expected) == 70
    for row in table.frame.itertuples(index=False):
        codes = (row.mask, row.gender, row.age_group)
        assert (row.person, row.id, row.age, *codes) == expected[row.image]
        assert row.label == 6 * row.mask + 3 * row.gender + row.age_group
        assert (table.root / row.image).is_file()
    assert table.notes == []


def test_the_ids_and_files_of_the_competition(tmp_path):
    rows = [
        person(1498, suffix="-1"),
        person(3397, "female", 25),
        person(3397, "male", 60),
        person(1, "female", 19),
    ]
    home = competition(tmp_path / "train", rows, (".jpg", ".jpeg", ".png", ".JPG"))
    folder = home / "images" / rows[0][-1]
    for name in ("._mask1.jpg", ".DS_Store", "._normal.png"):
        (folder / name).touch()
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "mask1-checkpoint.jpg").touch()
    for name in (f"._{rows[1][-1]}", ".ipynb_checkpoints"):
        (home / "images" / name).mkdir()
    table = dataset.read_train(home)
    assert list(dict.fromkeys(table.frame.id)) == ["001498-1", "003397", "000001"]
    assert Counter(table.frame.person) == {row[-1]: 7 for row in rows}
    assert not table.frame.image.str.contains(r"/\.").any()
    assert {name.rpartition(".")[2] for name in table.frame.image} == {"jpg", "jpeg", "png", "JPG"}
    assert len(table.notes) == 1 and table.notes[0].startswith("junk files: 4 (001498-1")


def test_either_folder_of_the_layout_will_do(tmp_path, monkeypatch):
    home = competition(tmp_path / "train", [person(1), person(2)])
    table = dataset.read_train(home)
    for folder in (home / "images", str(home)):
        pd.testing.assert_frame_equal(dataset.read_train(folder).frame, table.frame)
    monkeypatch.chdir(home)
    for folder in ("images", "."):
        pd.testing.assert_frame_equal(dataset.read_train(folder).frame, table.frame)
    linked = tmp_path / "linked"  # whose photos lie elsewhere
    linked.mkdir()
    (linked / "images").symlink_to(shutil.move(home / "images", tmp_path / "photos"))
    shutil.copy(home / "train.csv", linked)
    found = dataset.read_train(linked / "images")
    pd.testing.assert_frame_equal(found.frame, table.frame)


def test_missing_and_surplus_photos_are_used_and_noted(tmp_path):
    rows = [person(i) for i in range(4)]
    home = competition(tmp_path / "train", rows)
    folders = [home / "images" / row[-1] for row in rows]
    (folders[0] / "mask3.jpg").unlink()
    (folders[1] / "mask6.jpg").touch()
    (folders[1] / "notes.txt").touch()
    (folders[2] / "mask1.png").touch()
    for path in folders[3].iterdir():
        path.unlink()
    folders[3].rmdir()
    (home / "images" / "stranger").mkdir()
    table = dataset.read_train(home)
    assert Counter(table.frame.person) == {rows[0][-1]: 6, rows[1][-1]: 7, rows[2][-1]: 7}
    assert f"{rows[2][-1]}/mask1.jpg" in set(table.frame.image)
    first, second, third, fourth = (row[-1] for row in rows)
    assert sorted(table.notes) == sorted(
        [
            f"missing photos: 1 ({first}/mask3)",
            f"files beside the seven photos: 2 ({second}/mask6.jpg, {second}/notes.txt)",
            f"second files of one photo: 1 ({third}/mask1.png)",
            f"people without a folder: 1 ({fourth})",
            "folders that train.csv does not list: 1 (stranger)",
        ]
    )


GOOD = person(1)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (["2", "man", "Asian", "20", "a"], "gender is 'man'"),
        (["2", "male", "Asian", "young", "a"], "age is 'young'"),
        (["2", "male", "Asian", "-3", "a"], "age is '-3'"),
        (["2", "male", "Asian", "nan", "a"], "age is 'nan'"),
        (["2", "male", "Asian", "inf", "a"], "age is 'inf'"),
        (["2", "male", "Asian", "20.5", "a"], "age is '20.5'"),
        (["2", "male", "Asian", "", "a"], "column age is missing or empty"),
        (["2", "male", "Asian", "20"], "column path is missing or empty"),
        (["2", "male", "Asian", "20", "../a"], "leaves the images folder"),
        (["2", "male", "Asian", "20", "a/../../b"], "leaves the images folder"),
        (["2", "male", "Asian", "20", "..\\a"], "leaves the images folder"),
        (["2", "male", "Asian", "20", "/etc"], "leaves the images folder"),
        (GOOD, "is on line 2 too"),
        ([*GOOD[:-1], f"./{GOOD[-1]}/"], "is on line 2 too"),
    ],
)
def test_a_wrong_row_is_one_line_with_file_and_row(tmp_path, row, words):
    home = competition(tmp_path / "train", [GOOD])
    write_table(home, [GOOD, row])
    with pytest.raises(UserError) as caught:
        dataset.read_train(home)
    message = str(caught.value)
    assert message.startswith(f"{home / 'train.csv'} line 3: ")
    assert words in message and "\n" not in message


def test_a_wrong_table_is_one_line_with_the_file(tmp_path):
    home = competition(tmp_path / "train", [GOOD])
    contents = {
        b"": "has no rows; its columns must be id, gender, race, age, path",
        b"id,gender,race,path\n1,male,Asian,a\n": "line 1: column age is missing",
        b"id,gender,race,age,path\n": "has no rows",
        "id,gender,race,age,path\n1,male,한국,20,a\n".encode("cp949"): "is not a readable csv",
    }
    for content, words in contents.items():
        (home / "train.csv").write_bytes(content)
        with pytest.raises(UserError) as caught:
            dataset.read_train(home)
        assert str(home / "train.csv") in str(caught.value) and words in str(caught.value)
        assert "\n" not in str(caught.value)
    write_table(home, [person(9)])
    with pytest.raises(UserError, match="holds none of the photos"):
        dataset.read_train(home)
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="--data_dir"):
            dataset.read_train(folder)


def test_a_byte_order_mark_and_blanks_are_no_trouble(tmp_path):
    home = competition(tmp_path / "train", [GOOD])
    text = ",".join(HEADER) + "\r\n" + " , ".join(GOOD).replace("male ,", "Male ,", 1) + "\r\n"
    (home / "train.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert set(dataset.read_train(home).frame.person) == {GOOD[-1]}


def test_photos_decode_to_upright_rgb_without_alpha(tmp_path):
    top = np.zeros((8, 12, 3), np.uint8)
    top[:4] = (200, 100, 0)
    alpha = np.dstack([top, np.full((8, 12), 7, np.uint8)])
    Image.fromarray(alpha, "RGBA").save(tmp_path / "alpha.png")
    assert (reading.read_photo(tmp_path / "alpha.png") == top).all()
    Image.fromarray(top[..., 0]).save(tmp_path / "grey.png")
    assert (reading.read_photo(tmp_path / "grey.png") == top[..., :1]).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the stored top is the photo's right
    Image.fromarray(top).save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    turned = reading.read_photo(tmp_path / "turned.jpg").astype(int)
    assert turned.shape == (12, 8, 3)
    assert np.abs(turned - np.rot90(top, -1).astype(int)).max() <= 6


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.98])
def test_a_broken_photo_is_named(tmp_path, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    _, whole = cv2.imencode(".jpg", noise)
    (tmp_path / "a.jpg").write_bytes(whole.tobytes()[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"a\.jpg"):
        reading.read_photo(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"b\.jpg"):
        reading.read_photo(tmp_path / "b.jpg")


def test_find_images_and_eval_of_a_drawn_competition(drawn):
    root, names = dataset.find_images(drawn / "train")
    assert names == sorted(dataset.read_train(drawn / "train").frame.image) and len(names) == 168
    root, names = dataset.read_eval(drawn / "eval")
    listed = pd.read_csv(drawn / "eval" / "info.csv").ImageID.tolist()
    assert names == listed and all((root / name).is_file() for name in names)
    assert dataset.read_eval(drawn / "eval" / "images") == (root.resolve(), names)
    assert dataset.find_images(drawn / "eval") == (root, sorted(names))


def test_find_images_of_any_folder(tmp_path, capsys):
    for name in ("images/b/2.PNG", "a.jpg", "._a.jpg", ".hidden/c.jpg", "readme.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    assert dataset.find_images(tmp_path) == (tmp_path, ["a.jpg", "images/b/2.PNG"])
    assert "1 file left out, of other suffixes (.txt)" in capsys.readouterr().out
    (tmp_path / "a.png").touch()  # which may not have a matte, but pixels
    assert dataset.find_images(tmp_path)[1] == ["a.jpg", "a.png", "images/b/2.PNG"]
    (tmp_path / "\udcff.jpg").touch()
    with pytest.raises(UserError, match=r"the name '\\udcff\.jpg' is not UTF-8; rename"):
        dataset.find_images(tmp_path / "\udcff.jpg")
    with pytest.raises(UserError, match=r"^nosuch is not a folder; .*--images"):
        dataset.find_images("nosuch", "--images")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no photos"):
        dataset.find_images(tmp_path / "empty")


@st.composite
def tables(draw):
    """A table of 2 to 60 people in some of the six cells, with 1 to 7 photos each, shuffled."""
    kinds = draw(st.integers(1, 6))
    cells = draw(st.lists(st.integers(0, kinds - 1), min_size=2, max_size=60))
    photos = draw(st.lists(st.integers(1, 7), min_size=len(cells), max_size=len(cells)))
    rows = [
        (f"p{number:03d}", cell // 3, cell % 3)
        for number, (cell, count) in enumerate(zip(cells, photos, strict=True))
        for _ in range(count)
    ]
    frame = pd.DataFrame(rows, columns=["person", "gender", "age_group"])
    return frame.sample(frac=1, random_state=draw(st.integers(0, 99)))


def counts(frame, folds):
    """{cell: Counter of its people in each fold}, and the same of everybody."""
    people = frame.drop_duplicates("person").set_index("person")
    cells = (people.gender * 3 + people.age_group)[folds.person].to_numpy()
    found = {cell: Counter(folds.fold[cells == cell]) for cell in np.unique(cells)}
    return found, Counter(folds.fold)


def spread(counter, k):
    each = [counter[fold] for fold in range(k)]
    return max(each) - min(each)


@given(tables(), st.data(), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_folds_of_any_table(frame, data, seed):
    k = data.draw(st.integers(2, min(10, frame.person.nunique())))
    folds = dataset.split_people(frame, seed, k_fold=k)
    assert list(folds.person) == sorted(set(frame.person))  # each once, so on one side only
    assert set(folds.fold) == set(range(k))
    cells, whole = counts(frame, folds)
    assert spread(whole, k) <= 1 and all(spread(cell, k) <= 1 for cell in cells.values())
    again = dataset.split_people(frame.sample(frac=1, random_state=1), seed, k_fold=k)
    pd.testing.assert_frame_equal(folds, again)


@given(tables(), st.floats(0, 1, exclude_max=True), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_hold_out_of_any_table(frame, share, seed):
    people = frame.person.nunique()
    try:
        folds = dataset.split_people(frame, seed, val_ratio=share)
    except UserError as error:
        assert 0 < share * people < 1 and "is nobody: give" in str(error)
        return
    assert list(folds.person) == sorted(set(frame.person)) and set(folds.fold) <= {-1, 0}
    cells, whole = counts(frame, folds)
    for counter in (whole, *cells.values()):
        assert abs(counter[0] - share * counter.total()) <= 1 + 1e-9
    assert whole[-1] > 0
    again = dataset.split_people(frame.sample(frac=1, random_state=1), seed, val_ratio=share)
    pd.testing.assert_frame_equal(folds, again)


@pytest.mark.filterwarnings("ignore:The least populated")
@given(tables(), st.integers(2, 6), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_folds_are_as_balanced_as_scikit_learn(frame, k, seed):
    people = frame.drop_duplicates("person").sort_values("person", ignore_index=True)
    cell = people.gender * 3 + people.age_group
    if cell.value_counts().max() < k:
        return  # scikit-learn refuses
    folds = dataset.split_people(frame, seed, k_fold=k)
    reference = folds.assign(fold=-1)
    splitter = StratifiedKFold(k, shuffle=True, random_state=seed)
    for fold, (_, valid) in enumerate(splitter.split(people, cell)):
        reference.loc[valid, "fold"] = fold
    (ours, whole), (theirs, their_whole) = counts(frame, folds), counts(frame, reference)
    for key in ours:
        assert sorted(ours[key].values()) == sorted(theirs[key].values())
    assert sorted(whole.values()) == sorted(their_whole.values())


def test_another_seed_gives_other_folds_and_wrong_numbers_are_refused(drawn):
    frame = dataset.read_train(drawn / "train").frame
    several = {tuple(dataset.split_people(frame, seed, k_fold=4).fold) for seed in range(5)}
    assert len(several) == 5
    for k_fold in (1, 25):
        with pytest.raises(UserError, match=f"--k_fold {k_fold}: give 2 to 24"):
            dataset.split_people(frame, 0, k_fold=k_fold)
    assert set(dataset.split_people(frame, 0, val_ratio=0).fold) == {-1}
