"""What several test files share: drawn data and runs, references by others' libraries."""

import json
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from sklearn.metrics import f1_score

import augment
import metrics
from common.files import HOME
from labels import CLASSES, HEADS, PROBS, joint
from model import ModelInfo
from options import make_parser
from photos.reading import END, digest, tie

CELLS = np.array([549, 410, 83, 732, 817, 109]) / 2700  # gender x age of the competition
PHOTOS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")
TIMES = ["images_per_s", "wait_share", "seconds"]  # of a log.csv
MISLABELLED = {7: "gender", 22: "age"}  # people whose label the runs of draw_run contradict


def draw_data(root, people=36, broken=True):
    """A train folder of noise photos, 48 x 64: the first 20 people have mattes of rembg, of which
    one was rejected; one photo of person 3 is `broken`.
    """
    rng, rows, home = np.random.default_rng(0), [], root / "train"
    for k in range(people):
        gender, age = ("male", "female")[k % 2], (24, 29, 41, 58, 60, 60)[k // 2 % 6]
        name = f"{k:06d}_{gender}_Asian_{age}"
        rows.append((f"{k:06d}", gender, "Asian", age, name))
        face = cv2.resize(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8), (48, 64))
        draw_photos(home / "images" / name, face, "jpg")
        if k < 20:
            draw_photos(home / "mattes" / "rembg" / name, np.full((64, 48), 128, np.uint8), "png")
    if broken:
        (home / "images" / rows[3][4] / "mask2.jpg").write_bytes(b"no image")
    columns = ["id", "gender", "race", "age", "path"]
    pd.DataFrame(rows, columns=columns).to_csv(home / "train.csv", index=False)
    (home / "mattes" / "rembg" / "rejected.csv").write_text(
        f"image,reason\n{rows[0][4]}/mask1.jpg,covers too little\n"
    )
    return home


def write_matte(path, alpha, photo):
    """A matte, uint8 (H, W), of the photo in the file `photo` as it is now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    png = cv2.imencode(".png", alpha)[1].tobytes()
    path.write_bytes(png.removesuffix(END) + tie(digest(photo.read_bytes())))


def draw_photos(folder, photo, suffix):
    """The seven photos of a person, all the same."""
    folder.mkdir(parents=True)
    for stem in PHOTOS:
        cv2.imwrite(str(folder / f"{stem}.{suffix}"), photo)


def draw_run(folder, frame, skill, seed=0, last_epoch=None, **options):
    """A finished run of three folds and two epochs; returns its folder.

    frame: of dataset.Table. The higher the skill, the more is right, but for MISLABELLED people.
    last_epoch: macro F1 of the last epoch, which older runs do not know.
    """
    rng = np.random.default_rng(seed)
    person, probs = pd.factorize(frame.person)[0], {}
    for name in ("mask", "gender", "age"):
        truth = frame["age_group" if name == "age" else name].to_numpy()
        logits = rng.standard_normal((len(frame), HEADS[name]))
        logits += 0.7 * rng.standard_normal((person.max() + 1, HEADS[name]))[person]
        logits[np.arange(len(frame)), truth] += skill
        for k, field in MISLABELLED.items():
            if field == name:
                logits[person == k] = 9 * np.roll(np.eye(HEADS[name])[truth[person == k]], 1, 1)
        probs[name] = softmax(logits, 1)
    oof = frame[["image", "person", "label"]].copy()
    oof.insert(2, "fold", person % 3)
    oof[PROBS] = joint(probs).round(7)
    folder.mkdir(parents=True)
    oof.sample(frac=1, random_state=seed).to_csv(folder / "oof.csv", index=False)
    folds = oof[["person", "fold"]].drop_duplicates()
    folds.to_csv(folder / "folds.csv", index=False)
    scores = metrics.score(oof.label, oof[PROBS].to_numpy()) | {"folds": [], "seconds": 5.5}
    if last_epoch is not None:
        scores["last_epoch"] = {"macro_f1": last_epoch}
    (folder / "metrics.json").write_text(json.dumps(scores))
    recorded = vars(make_parser().parse_args([])) | {"seed": seed, "k_fold": 3} | options
    data = {"fingerprint": "0", "people": len(folds), "images": len(frame)}
    config = {"layout": "joint", "seed": seed, "options": recorded, "data": data}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def read_tables(out):
    """{name: frame} of the csv files that report.py has written beside the page `out`."""
    folder = out.with_name(f"{out.stem}_tables")
    return {
        path.stem: pd.read_csv(path, keep_default_na=False)
        for path in folder.iterdir()
        if path.stat().st_size > 1
    }


def model_info(**changes):
    """The ModelInfo of a tiny model of three heads, with some of it changed."""
    info = ModelInfo(
        model="test_resnet", heads=("mask", "gender", "age"), size=(64, 48),
        mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), bg="none", bg_fill="mean", crop="none",
        rembg_model="u2netp", mattes={}, amp="off", channels_last=True,
    )  # fmt: skip
    return replace(info, **changes)


def macro_f1_sklearn(labels, predictions, classes=CLASSES, **options):
    """scikit-learn's macro F1 over all of 0..classes-1, or over a list of classes."""

    classes = range(classes) if isinstance(classes, int) else classes
    return f1_score(
        labels, predictions, labels=classes, average="macro", zero_division=0, **options
    )


def random_probs(rng, labels, strength=1.5):
    """(N, 18) random probabilities; the logit of the true class is `strength` higher."""
    logits = rng.standard_normal((len(labels), CLASSES))
    logits[np.arange(len(labels)), labels] += strength
    exp = np.exp(logits)
    return exp / exp.sum(1, keepdims=True)


def columns_of(draws):
    """{name: (n,) column} of draws, but for those of augment.MORE."""
    return dict(zip(augment.COLUMNS, draws.unbind(-1), strict=False))


def set_columns(draws, **values):
    """The draws, with the named columns set, each to one value or to one a sample."""
    columns = columns_of(draws)
    for name, value in values.items():
        columns[name].copy_(torch.as_tensor(value))
    return draws


def identity(n):
    """Draws of n samples for the strength "strong" that change nothing."""
    draws = torch.zeros_like(augment.draw(n, "strong", torch.Generator()))
    return set_columns(draws, scale=1, brightness=1, contrast=1, saturation=1)


def reference_warp(image, draw):
    """Flip and affine by torchvision of a (3, H, W) uint8 photo that numpy has mirrored beyond
    its edges; float32 in 0..1. draw: one row of draws.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

    value = {name: column.item() for name, column in columns_of(draw).items()}
    _, height, width = image.shape
    image = tv.horizontal_flip(image) if value["flip"] else image
    margin = ((0, 0), (height, height), (width, width))
    padded = torch.from_numpy(np.pad(image.numpy(), margin, mode="symmetric")).float() / 255
    warped = tv.affine(
        padded,
        angle=value["angle"],
        translate=[value["shift_x"] * width, value["shift_y"] * height],
        scale=value["scale"],
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    return warped[:, height : 2 * height, width : 2 * width]


def compare_runs(a, b):
    """Names of what differs between two runs beyond their times."""
    different = []
    for path in sorted(a.rglob("*")):
        other = b / path.relative_to(a)
        if path.name == "log.csv":
            ours, theirs = (
                pd.read_csv(p).drop(columns=TIMES, errors="ignore") for p in (path, other)
            )
            same = ours.equals(theirs)
        elif path.suffix in (".safetensors", ".csv"):
            same = path.read_bytes() == other.read_bytes()
        else:
            continue
        different += [] if same else [str(path.relative_to(a))]
    return different


def python(code, *words, **options):
    """A process that runs `code`, with the modules of the project to import."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=HOME,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def outcome(code, *words):
    """(exit code, output, errors) of python()."""
    process = python(code, *words)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err
