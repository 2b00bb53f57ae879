"""Files and names of strangers: nothing that is loaded runs code, or leaves its folder."""

import io
import pickle
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch

from harness.case import Case, nothing_ran
from harness.engine import error, error_or_works, works
from harness.folder import (
    all_of,
    cell,
    duplicate,
    link,
    rename,
    replace,
    set_header,
    set_json,
    text,
    write,
)

CASES = []
HALF, JOINT = "runs/half", "runs/joint"
STATE = f"{HALF}/fold0/label/last.pt"
PERSON = "000001_female_Asian_60"


def add(name, command, argv, prepare, expected, then=nothing_ran, **more):
    name = f"strangers: {name}"
    CASES.append(Case(name, "strangers", command, argv, prepare, expected, then=then, **more))


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return exec, ("open('pwned', 'w').close()",)


def torch_file(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def object_array():
    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil()], object), allow_pickle=True)
    return buffer.getvalue()


def archive(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, pickle.dumps(Evil()))
    return buffer.getvalue()


# ---- pickles: {name: bytes}, in place of everything that is loaded

PICKLES = {
    "a pickle": pickle.dumps(Evil()),
    "an old pickle": pickle.dumps(Evil(), 0),
    "a file of torch": torch_file(Evil()),
    "a file of torch within a state": torch_file({"model": Evil(), "epoch": 1}),
    "an array of objects": object_array(),
    "an archive that climbs": archive("../../pwned"),
}
for name, data in PICKLES.items():
    add(f"{name} as last.pt", "train", f"--resume {HALF}", write(STATE, data),
        error(r"last\.pt", never="weights_only"))  # fmt: skip
    tensors = f"{JOINT}/fold0/label/best.safetensors"
    add(f"{name} as weights of a run", "inference", "", write(tensors, data),
        error(r"best\.safetensors"))  # fmt: skip
    for suffix in ("pt", "safetensors", "bin"):
        add(f"{name} as --weights x.{suffix}", "train", f"--weights x.{suffix}",
            write(f"x.{suffix}", data), error(f"x.{suffix}", never="weights_only"))  # fmt: skip
    add(f"{name} as a photo", "train", "", write(f"data/train/images/{PERSON}/mask1.jpg", data),
        error("mask1.jpg"))  # fmt: skip
    add(f"{name} as config.json", "train", f"--resume {HALF}", write(f"{HALF}/config.json", data),
        error("config.json"))  # fmt: skip
    add(f"{name} as a network of rembg", "preprocess", "--bg rembg --rembg_model x.onnx",
        write("x.onnx", data), error("x.onnx"))  # fmt: skip
    add(f"{name} as a database", "tune", "--storage sqlite:///x.db", write("x.db", data),
        error("x.db"), changes=("runs/*",))  # fmt: skip


def cached_pickle(box):
    """A store whose file is an array of objects is made again, or refused."""
    from harness.case import words_of

    done = box.run("inference", words_of("inference", ""))
    for path in box.folder.glob("cache/*.npy"):
        replace(path, object_array())
    again = box.run("inference", words_of("inference", ""))
    complaints = works().complaints(done) + error_or_works("npy").complaints(again)
    return complaints + nothing_ran(box, again)


CASES.append(Case("strangers: an array of objects in the cache", "strangers", story=cached_pickle))


# ---- paths that leave their folder


ABSOLUTE = f"{tempfile.gettempdir()}/pwned"


def outside(box, done):
    """Nothing lies beside the case's folder or where the paths point."""
    known = {"case", "logs"}
    found = [p.name for p in box.folder.parent.iterdir() if p.name not in known]
    found += [str(p) for p in (Path(ABSOLUTE), Path("/pwned")) if p.exists()]
    return [f"wrote outside: {found[0]}"] if found else []


for place in ("../pwned", ABSOLUTE, "a/../../pwned"):
    add(f"train.csv points to {place}", "train", "", cell("data/train/train.csv", 2, "path", place),
        error("train.csv line 2", "leaves"), then=outside)  # fmt: skip
    add(f"info.csv points to {place}", "inference", "--model_dir runs/split",
        cell("data/eval/info.csv", 2, "ImageID", place), error("info.csv line 2", "leaves"),
        then=outside)  # fmt: skip
    for key in ("options/name", "options/model_dir"):
        add(f"config.json {key} is {place}", "train", f"--resume {HALF}",
            set_json(f"{HALF}/config.json", key, place), error_or_works("config.json|name"),
            then=outside)  # fmt: skip
    add(f"config.json layout is {place}", "inference", "",
        set_json(f"{JOINT}/config.json", "layout", place), error("config.json"),
        then=outside)  # fmt: skip
    add(f"a study called {place}", "tune", f"--study {place}", None, error("--study"), then=outside)
    add(f"a run called {place}", "train", f"--name {place}", None, error("--name"), then=outside)
    add(f"the weights name the model {place}", "inference", "",
        set_header(f"{JOINT}/fold0/label/best.safetensors",
                   lambda h, p=place: h.update(info=h["info"].replace("test_efficientnet", p))),
        error("best.safetensors|best.json"), then=outside)  # fmt: skip
    add(f"folds.csv names the person {place}", "train", f"--resume {HALF}",
        cell(f"{HALF}/folds.csv", 2, "person", place), error("folds.csv"),
        then=outside)  # fmt: skip
    add(f"rembg_model {place} of a run", "train", f"--resume {HALF}",
        set_json(f"{HALF}/config.json", "options/rembg_model", place),
        error_or_works("rembg_model|config.json"), then=outside)  # fmt: skip
for name in (
    "hf-hub:evil/model",
    "hf_hub:evil/model",
    "local-dir:/tmp",
    "schema://x",
    "../weights/x",
):
    add(f"--model {name}", "train", f"--model {name}", None, error("--model|model"))
add("a run behind a link", "inference", "--model_dir runs/link",
    link("runs/link", "joint"), works())  # fmt: skip
add("a photo behind a link to /etc/passwd", "train", "",
    link(f"data/train/images/{PERSON}/mask1.jpg", "/etc/passwd"),
    error("mask1.jpg", never="root:"))  # fmt: skip
add("a run within itself", "report", f"--model_dir {JOINT}", link(f"{JOINT}/fold2", "."),
    error_or_works("fold2"))  # fmt: skip


# ---- names that are code to somebody: HTML, formulas, format strings, escape sequences

SCRIPT = "<script>alert(1)</script>".replace("/", "\u2215")
NAMES = {
    "a script": SCRIPT, "an image": "<img src=x onerror=alert(1)>",
    "a template": "{{7*191*733}}{%x%}",
    "a quote": "\"'><b>", "a percent": "%s%n%(x)s", "dollars": "$x^^2$ _",
    "a backslash": "$\\frac$",
    "an ampersand": "&amp;&lt;",
}  # fmt: skip


def escaped(name):
    """The page shows the name, never as markup."""

    def then(box, done):
        page = next(box.folder.glob("*.html")).read_text(encoding="utf-8")
        raw = name in page and any(c in name for c in "<>")
        return ["the page holds the name as markup"] if raw or "980021" in page else []

    return then


for kind, name in NAMES.items():
    add(f"{kind} as the name of a run", "report", "--model_dir runs/x",
        all_of(duplicate(JOINT, "runs/x"), set_json("runs/x/config.json", "options/name", name)),
        error("option name") if "\\" in name else works(),  # which --name does not take
        then=None if "\\" in name else escaped(name))  # fmt: skip
    quoted = '"' + name.replace('"', '""') + '"'
    add(f"{kind} as a person", "report", "",
        all_of(rename(f"data/train/images/{PERSON}", name),
               text("data/train/train.csv", f",{PERSON}", f",{quoted}")),
        works(), then=escaped(name))  # fmt: skip
    add(f"{kind} as an id", "report", "", text("data/train/train.csv", "\n000003,", f"\n{quoted},"),
        works(), then=escaped(name))  # fmt: skip
    add(f"{kind} as a photo of eval", "inference", "--images data/eval/images",
        rename("data/eval/images/268134cb0e5d9ef237a1aa559a732b20516d9b5f.jpg", f"{name}.jpg"),
        works())  # fmt: skip
    for key in ("command", "git", "hardware", "started"):
        add(f"{kind} as {key} of config.json", "report", f"--model_dir {JOINT}",
            set_json(f"{JOINT}/config.json", key, name), error_or_works("config.json"),
            then=lambda box, done, n=name: [] if done.code else escaped(n)(box, done))  # fmt: skip
for key, value in {"__class__": "x", "__init__": {"": 1}, "__dict__": {}, "_get_kwargs": 1}.items():
    add(f"config.json option {key}", "train", f"--resume {HALF}",
        set_json(f"{HALF}/config.json", f"options/{key}", value), error_or_works(key))  # fmt: skip
