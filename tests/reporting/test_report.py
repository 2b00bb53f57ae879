"""report.py and its parts, on a small drawn table and runs whose mistakes are planted."""

import base64
import json
import re
from xml.etree import ElementTree

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

import report
from common.errors import UserError
from dataset import read_train
from experiment import reader
from labels import CLASS_NAMES, CLASSES, decode, join
from photos.reading import default_matte_dir
from reporting import figures, runs, survey

PHOTOS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")
GENDERS = ("male", "female")
WRONG = {7: "gender", 22: "age"}  # people whose label the runs contradict


def draw_data(root, people=36, broken=True):
    """A train folder: noise photos, one of them `broken`, a pair of look-alikes, some mattes."""
    rng, rows, face = np.random.default_rng(0), [], None
    images = root / "train" / "images"
    for k in range(people):
        gender, age = GENDERS[k % 2], (24, 29, 41, 58, 60, 60)[k // 2 % 6]
        name = f"{k:06d}_{gender}_Asian_{age}"
        (images / name).mkdir(parents=True)
        rows.append((f"{k:06d}", gender, "Asian", age, name))
        if k == 31:  # the same picture as person 30, darker
            face = (face * 0.8).astype(np.uint8)
        else:
            face = cv2.resize(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8), (48, 64))
        for photo in PHOTOS:
            cv2.imwrite(str(images / name / f"{photo}.jpg"), face)
    if broken:
        (images / rows[3][4] / "mask2.jpg").write_bytes(b"no image")
    columns = ["id", "gender", "race", "age", "path"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "train" / "train.csv", index=False)
    for row in rows[:20]:
        matte = root / "train" / "mattes" / "rembg" / row[4]
        matte.mkdir(parents=True)
        for photo in PHOTOS:
            cv2.imwrite(str(matte / f"{photo}.png"), np.full((64, 48), 128, np.uint8))
    (root / "train" / "mattes" / "rembg" / "rejected.csv").write_text(
        f"image,reason\n{rows[0][4]}/mask1.jpg,covers too little\n"
    )
    return root / "train"


def draw_run(folder, frame, skill, seed=0, folds=3, **options):
    """A finished run of predictions that are right by `skill`, but for the people in WRONG."""
    rng = np.random.default_rng(seed)
    person = pd.factorize(frame.person)[0]
    truth = {name: frame["age_group" if name == "age" else name].to_numpy() for name in SIZES}
    probs = {}
    for name, values in SIZES.items():
        logits = rng.standard_normal((len(frame), values))
        logits += 0.7 * rng.standard_normal((person.max() + 1, values))[person]
        logits[np.arange(len(frame)), truth[name]] += skill
        for k, field in WRONG.items():
            if field == name:
                logits[person == k] = np.roll(np.eye(values)[truth[name][person == k]], 1, 1) * 9
        exp = np.exp(logits)
        probs[name] = exp / exp.sum(1, keepdims=True)
    oof = frame[["image", "person", "label"]].copy()
    oof.insert(2, "fold", person % folds)
    oof[[f"p{k}" for k in range(CLASSES)]] = join(probs).round(7)
    (folder / "fold0" / "label").mkdir(parents=True)
    oof.sample(frac=1, random_state=seed).to_csv(folder / "oof.csv", index=False)
    if folder.name.startswith("a"):  # b is of a version that did not know it
        (folder / "metrics.json").write_text(f'{{"last_epoch": {{"macro_f1": 0.0{seed}}}}}')
    options = {"split_heads": False, "seed": seed, "lr": {"": 1e-3}} | options
    config = {"layout": "joint", "seed": seed, "options": options}
    (folder / "config.json").write_text(json.dumps(config))
    log = pd.DataFrame({"epoch": [1, 2], "macro_f1": [0.2, 0.4]})
    log.to_csv(folder / "fold0" / "log.csv", index=False)
    log = log.assign(train_loss=[2.0, 1.0], val_loss=[2.2, 1.5], seconds=[3.0, 2.5])
    log.assign(images_per_s=[90.0, 110.0], wait_share=0.02).to_csv(
        folder / "fold0" / "label" / "log.csv", index=False
    )
    return folder


SIZES = {"mask": 3, "gender": 2, "age": 3}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """(folder, Table): the data, and runs a, a2 (seeds of one), b (better), rembg."""
    root = tmp_path_factory.mktemp("report")
    table = read_train(draw_data(root))
    draw_run(root / "a", table.frame, 1.5, seed=1)
    draw_run(root / "a2", table.frame, 1.5, seed=2)
    draw_run(root / "b", table.frame, 4.0, seed=3, lr={"": 3e-4})
    return root, table


@pytest.fixture(scope="module")
def written(drawn):
    """(page, tables) of a report on two configurations, a with two seeds."""
    root, _ = drawn
    out, a = root / "out" / "report.html", f"{root / 'a'},{root / 'a2'}"
    words = ["--data_dir", root / "train", "--model_dir", a, root / "b", "--out", out]
    report.main([*map(str, words), "--cam_images", "0"])
    return out.read_text(), read_tables(out)


def read_tables(out):
    folder = out.with_name(f"{out.stem}_tables")
    return {
        path.stem: pd.read_csv(path, keep_default_na=False)
        for path in folder.iterdir()
        if path.stat().st_size > 1
    }


def oof_of(folder):
    oof = pd.read_csv(folder / "oof.csv").sort_values("image", ignore_index=True)
    return oof, oof[[f"p{k}" for k in range(CLASSES)]].to_numpy().argmax(1)


def sklearn_f1(oof, predictions):
    return f1_score(oof.label, predictions, labels=range(18), average="macro", zero_division=0)


def test_page_stands_alone(written, drawn):
    page, _ = written
    assert len(page.encode()) < 8e6
    assert not re.search("https?:|<script|@import|url\\((?!#)", page)
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    files = [link for link in links if not link.startswith(("data:", "#"))]
    assert files
    for link in files:
        assert (drawn[0] / "out" / link).is_file(), link
    anchors = {link[1:] for link in links if link.startswith("#") and link != "#"}
    ids = re.findall(r' id="([^"]*)"', page)
    assert anchors <= set(ids) and len(anchors) > 20
    pictures = [link for link in links if link.startswith("data:image/webp")]
    assert len(pictures) > 60
    for link in set(pictures):
        coded = np.frombuffer(base64.b64decode(link.split(",")[1]), np.uint8)
        assert cv2.imdecode(coded, cv2.IMREAD_COLOR) is not None


def test_page_has_the_numbers_of_sklearn(written, drawn):
    page, tables = written
    root, _ = drawn
    found = {name: oof_of(root / name) for name in ("a", "a2", "b")}
    f1 = {name: sklearn_f1(*pair) for name, pair in found.items()}
    mean = (f1["a"] + f1["a2"]) / 2
    table = tables["runs"].set_index("run")
    assert list(table.index) == ["b", "a"]
    assert table.macro_f1["a"] == pytest.approx(mean)
    assert float(table.sd_over_seeds["a"]) == pytest.approx(np.std([f1["a"], f1["a2"]], ddof=1))
    assert float(table.difference["b"]) == pytest.approx(f1["b"] - mean)
    assert float(table.last_epoch["a"]) == pytest.approx(0.015) and table.last_epoch["b"] == ""
    assert table.seconds["a"] == 5.5 and table.images_per_s["b"] == 100
    for text in (f"{f1['b']:.3f}", f"{f1['b'] - mean:+.3f}", "b vs a: +", ">0.015<"):
        assert text in page
    compared = tables["comparison"].set_index("measure")
    oof, predictions = found["b"]
    assert compared.b["accuracy"] == pytest.approx(accuracy_score(oof.label, predictions))
    age = decode(oof.label.to_numpy())["age"], decode(predictions)["age"]
    assert compared.b["age (macro F1)"] == pytest.approx(f1_score(*age, average="macro"))
    per_class = tables["per_class_f1"].query("run == 'b' and kind == 'label'")
    expected = f1_score(oof.label, predictions, labels=range(18), average=None, zero_division=0)
    assert list(per_class["class"]) == list(CLASS_NAMES)
    assert per_class.f1.to_numpy() == pytest.approx(expected)
    option = tables["one_option"].iloc[0]
    assert (option.option, option["from"], option.to) == ("lr", 0.001, 0.0003)


def test_page_shows_who_is_wrong(written, drawn):
    page, tables = written
    root, table = drawn
    oof, predictions = oof_of(root / "b")
    mistakes = tables["mistakes"].query("run == 'b'")
    assert set(mistakes.image) == set(oof.image[oof.label != predictions])
    assert (np.diff(mistakes.p_prediction) <= 0).all()
    right_a = oof_of(root / "a")[1] == oof.label
    won = tables["discordant"].query("change == 'won'")
    assert set(won.image) == set(oof.image[~right_a & (predictions == oof.label)])
    by_age = tables["error_by_age"].query("run == 'b'").set_index("age")
    ages = table.frame.set_index("image").age[oof.image].to_numpy()
    gender = decode(oof.label.to_numpy())["gender"] != decode(predictions)["gender"]
    for year in (24, 60):
        assert by_age.gender[year] == pytest.approx(gender[ages == year].mean())
    people = table.frame.person.unique()
    found = tables["suspects"]
    assert list(found) == ["id", "field", "from", "to", "confidence", "note"]
    assert set(zip(found.note[:2], found.field[:2], strict=True)) == {
        (people[k], field) for k, field in WRONG.items()
    }
    assert (found["from"][:2] != found.to[:2]).all()
    assert "gender: female → male?" in page


def test_data_alone(drawn, capsys):
    root, table = drawn
    out = root / "eda.html"
    report.main(["--data_dir", str(root / "train" / "images"), "--out", str(out)])
    page, tables = out.read_text(), read_tables(out)
    assert "36 people, 252 photos" in capsys.readouterr().out
    assert "Each run" not in page and "covers too little" in page
    counts = tables["classes"].set_index("label").images
    assert counts.to_dict() == table.frame.label.value_counts().to_dict() | {
        k: 0 for k in range(CLASSES) if k not in set(table.frame.label)
    }
    broken = tables["unreadable"]
    assert list(broken.image) == [f"{table.frame.person.unique()[3]}/mask2.jpg"]
    assert broken.image[0] in page
    pairs = tables["near_duplicates"]
    assert [(a[:6], b[:6]) for a, b in zip(pairs.a, pairs.b, strict=True)] == [("000030", "000031")]
    assert pairs.labels_differ[0] == "yes"
    mattes = tables["mattes"].iloc[0]
    assert mattes.photos_with_a_matte == pytest.approx(20 / 36)
    assert mattes.mean_person_share == pytest.approx(128 / 255) and mattes.rejected == 1


def test_means_are_those_of_whole_photos(drawn):
    _, table = drawn
    files, means, _ = survey.survey(table.root, table.frame)
    assert (files.kind == "JPEG").sum() == 251 and (files.error != "").sum() == 1
    photos = [
        cv2.resize(cv2.imread(str(table.root / image)), survey.SMALL, interpolation=cv2.INTER_AREA)
        for image in table.frame.image[table.frame.label == 17]
    ]
    assert np.abs(np.mean(photos, 0)[..., ::-1] - means[17]).max() <= 0.51


def test_mattes_are_looked_for_where_the_runs_had_them(drawn, tmp_path):
    root, table = drawn
    elsewhere = tmp_path / "mattes"
    run = draw_run(tmp_path / "far", table.frame, 2.0, matte_dir=str(elsewhere))
    groups = runs.read_groups([str(root / "a"), str(run)])
    beside = report.find_mattes(None, groups, table)
    assert beside == default_matte_dir(table.root) != elsewhere  # it does not exist yet
    elsewhere.mkdir()
    assert report.find_mattes(None, groups, table) == elsewhere
    assert report.find_mattes(str(root), groups, table) == root


def test_look_alikes_are_a_plain_loop():
    rng = np.random.default_rng(3)
    hashes = {f"p{k}": rng.random(256) < 0.5 for k in range(40)}
    hashes["copy"] = hashes["p7"] ^ (np.arange(256) < 11)
    found = survey.look_alikes(hashes, limit=115)
    expected = sorted(
        (int((hashes[a] != hashes[b]).sum()), a, b)
        for a in hashes
        for b in hashes
        if a < b and (hashes[a] != hashes[b]).sum() <= 115
    )
    assert len(expected) > 5 and found.bits[0] == 11
    assert sorted(zip(found.bits, found.a, found.b, strict=True)) == expected


def test_holm_is_the_definition():
    p = np.array([0.03, 0.01, 0.04, 0.5])
    order, running, expected = np.argsort(p), 0.0, np.zeros(4)
    for step, k in enumerate(order):
        running = max(running, (4 - step) * p[k])
        expected[k] = min(1, running)
    assert runs.holm(p) == pytest.approx(expected)
    assert runs.holm([0.02]) == pytest.approx([0.02]) and len(runs.holm([])) == 0


def test_pairs_that_differ_in_one_option():
    def group(name, **options):
        options = {flag: {"": value} for flag, value in options.items()}
        config = {"layout": "joint", "options": options | {"seed": hash(name)}}
        return runs.Group(name, [reader.Run(None, config, None)])

    one, two = group("one", bg="none", lr=1e-3), group("two", bg="rembg", lr=1e-3)
    three, four = group("three", bg="rembg", lr=1e-4), group("four", bg="none", lr=1e-4)
    pairs = runs.matched_pairs([one, two, three, four])
    assert pairs == {
        ("bg", "none", "rembg"): [(one, two), (four, three)],
        ("lr", "0.001", "0.0001"): [(one, four), (two, three)],
    }
    assert runs.option_text({"": [128, 96], "age": 1e-4}) == "128 96 age=0.0001"


def test_figures_take_the_ink_of_the_page(drawn):
    people = drawn[1].frame.drop_duplicates("person")
    first, second = figures.age_histogram(people), figures.forest([("x", 0.1, 0, 0.2)], "a", "<t>")
    for svg in (first, second):
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img" and root.get("aria-label")
        assert "currentColor" in svg and figures.INK not in svg
    ids = [set(re.findall(r' id="([^"]*)"', svg)) for svg in (first, second)]
    assert ids[0] and not ids[0] & ids[1]


def spoil_half(folder):
    path = folder / "oof.csv"
    path.write_text(path.read_text()[:900])


def spoil_label(folder):
    oof = pd.read_csv(folder / "oof.csv")
    oof.loc[oof.person == oof.person.min(), "label"] = (oof.label + 1) % CLASSES
    oof.to_csv(folder / "oof.csv", index=False)


def spoil_people(folder):
    oof = pd.read_csv(folder / "oof.csv")
    oof[oof.person != oof.person.min()].to_csv(folder / "oof.csv", index=False)


def spoil_columns(folder):
    pd.read_csv(folder / "oof.csv").drop(columns="p17").to_csv(folder / "oof.csv", index=False)


def spoil_rows(folder):
    oof = pd.read_csv(folder / "oof.csv")
    pd.concat([oof, oof[:1]]).to_csv(folder / "oof.csv", index=False)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no run of train.py"),
        (lambda folder: (folder / "config.json").write_text('{"a"'), "not valid JSON"),
        (lambda folder: (folder / "oof.csv").unlink(), "--resume"),
        (lambda folder: (folder / "oof.csv").write_text(""), "no readable csv"),
        (spoil_half, "no label 0..17 or no probability"),
        (spoil_columns, "column p17 is missing"),
        (spoil_rows, "occurs twice"),
        (spoil_people, "different images .*000000.* is in .*a only"),
        (spoil_label, "label of 7 images"),
    ],
)
def test_a_run_that_is_none(drawn, tmp_path, spoil, message):
    root, table = drawn
    folder = draw_run(tmp_path / "c", table.frame, 2.0)
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        report.main(
            ["--data_dir", str(root / "train"), "--model_dir", str(root / "a"), str(folder)]
        )
    assert "\n" not in str(caught.value)


def test_arguments_that_do_not_fit(drawn, tmp_path):
    root, _ = drawn
    a, data = str(root / "a"), ["--data_dir", str(root / "train")]
    with pytest.raises(UserError, match="is no folder"):
        report.main([*data, "--model_dir", str(root / "nothing")])
    with pytest.raises(UserError, match=r"--baseline .* none of the runs"):
        report.main([*data, "--model_dir", a, "--baseline", str(root / "b")])
    with pytest.raises(UserError, match="twice"):
        report.main([*data, "--model_dir", a, a])
    with pytest.raises(UserError, match=r"--matte_dir .* is no folder"):
        report.main([*data, "--matte_dir", str(root / "nothing")])
    other = draw_data(tmp_path, people=6)
    with pytest.raises(UserError, match=r"210 images that the data do not hold"):
        report.main(["--data_dir", str(other), "--model_dir", a])
    for wrong in (["--cam_images", "-1"], ["--baseline", "a"], ["--no_such_flag"]):
        with pytest.raises(UserError, match=wrong[0]):
            report.parse_args(wrong)
