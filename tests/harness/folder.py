"""The folder that each case gets a copy of, and what a case does to its copy."""

import json
import os
import shutil
import struct
from pathlib import Path

import train

TRAIN = (
    "--data_dir data/train --cache_dir cache --model test_efficientnet --weights none --device cpu "
    "--resize 32 24 --epochs 1 --batch_size 16 --warmup_epochs 0"
)
BASE = {  # what each command gets before the words of a case
    "train": TRAIN,
    "inference": "--model_dir runs/joint --data_dir data/eval --cache_dir cache --device cpu",
    "preprocess": "--data_dir data/train --bg grabcut --limit 4 --workers 1 --device cpu",
    "report": "--data_dir data/train --cam_images 0",
    "tune": "--trials 1 --space space.json",
    "demo": "--people 24 --eval_people 1 --size 32 32",
}
SPACE = {"lr": {"low": 1e-3, "high": 1e-2, "log": True}}
# The runs of the template: {name: words of train.py}.
RUNS = {
    "joint": "--k_fold 2",
    "joint2": "--k_fold 2 --seed 7",
    "split": "--split_heads --bg none mask=none+grabcut",
    "all": "--val_ratio 0",
    "half": "--k_fold 2 --epochs 3",
}


def make_template(box):
    """Fills the box's folder: data, runs (`half` is stopped after an epoch), mattes."""
    commands = [("demo", "--out data --people 24 --eval_people 4 --size 64 48")]
    commands += [("train", f"{TRAIN} --name {name} {words}") for name, words in RUNS.items()]
    answers = f"{BASE['inference']} --output_dir"
    commands += [("inference", f"{answers} answers/joint --save_probs")]
    commands += [("inference", f"{answers} answers/split --model_dir runs/split")]
    box.path("space.json").write_text(json.dumps(SPACE), encoding="utf-8")
    for command, argv in commands:
        half = "--name half --k_fold" in argv
        done = box.run(command, argv, stop_after_an_epoch if half else None)
        if done.code != (130 if half else 0):
            raise RuntimeError(f"the template cannot be made: {done}")
    shutil.rmtree(box.path("cache"))
    for path in box.folder.rglob("*lock"):  # a lock is of the file, which copies would share
        path.unlink()


def stop_after_an_epoch():
    """Makes train.main of this process stop after its first epoch, as by a signal."""
    main = train.main

    def stop(fold, epoch, score):
        raise KeyboardInterrupt

    train.main = lambda: main(on_epoch=stop)


def copy(template, folder):
    """A copy of the template by hard links: whoever changes a file replaces it."""
    shutil.copytree(template, folder, copy_function=os.link, symlinks=True)


# ---- what a case does to its folder: each returns a function of the folder


def all_of(*steps):
    def do(folder):
        for step in steps:
            step(folder)

    return do


def find(folder, pattern):
    """The first file or folder that a pattern names, or the path itself if there is none yet."""
    found = sorted(folder.glob(pattern)) if any(c in pattern for c in "*?[") else []
    if any(c in pattern for c in "*?[") and not found:
        raise FileNotFoundError(f"the case wants {pattern}, which the template lacks")
    return found[0] if found else folder / pattern


def replace(path, data):
    """Writes bytes or text as a new file, so that the template's stays as it is."""
    remove_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def remove_path(path):
    if path.is_dir() and not path.is_symlink():
        for _ in range(5):  # a command may write there meanwhile
            shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write(pattern, data):
    return lambda folder: replace(find(folder, pattern), data)


def remove(pattern):
    return lambda folder: remove_path(find(folder, pattern))


def change(pattern, edit):
    """edit: bytes -> bytes."""

    def do(folder):
        path = find(folder, pattern)
        replace(path, edit(path.read_bytes()))

    return do


def text(pattern, old, new, count=1):
    """Replaces a text in a file, which must hold it."""

    def edit(data):
        if old.encode() not in data:
            raise ValueError(f"the case wants {old!r} in {pattern}")
        return data.replace(old.encode(), new.encode(), count)

    return change(pattern, edit)


def lines(pattern, edit):
    """edit: [line] -> [line]."""
    join = "\n".join
    return change(pattern, lambda data: (join(edit(data.decode().splitlines())) + "\n").encode())


def cell(pattern, line, column, value):
    """Puts a value into a csv: line 2 is the first row."""

    def edit(rows):
        cells = rows[line - 1].split(",")
        cells[rows[0].split(",").index(column)] = value
        return [*rows[: line - 1], ",".join(cells), *rows[line:]]

    return lines(pattern, edit)


def truncate(pattern, share=0.5):
    return change(pattern, lambda data: data[: int(len(data) * share)])


def flip(pattern, place=0.7):
    """Turns the bits of one byte over, at a share of the file's length."""

    def edit(data):
        index = int(len(data) * place)
        return data[:index] + bytes([data[index] ^ 0xFF]) + data[index + 1 :]

    return change(pattern, edit)


def set_json(pattern, keys, value):
    """Sets a key of a JSON file ("options/lr" is nested); ... as the value removes it."""

    def edit(data):
        whole = json.loads(data)
        part, (*way, last) = whole, keys.split("/")
        for key in way:
            part = part[int(key) if isinstance(part, list) else key]
        if value is ...:
            del part[last]
        else:
            part[last] = value
        return json.dumps(whole).encode()

    return change(pattern, edit)


def set_header(pattern, edit):
    """Edits the metadata of a safetensors file: edit({name: text}) changes it in place."""

    def change_header(data):
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        edit(header.setdefault("__metadata__", {}))
        packed = json.dumps(header).encode()
        packed += b" " * (-len(packed) % 8)
        return struct.pack("<Q", len(packed)) + packed + data[8 + size :]

    return change(pattern, change_header)


def fifo(pattern):
    def do(folder):
        path = find(folder, pattern)
        remove_path(path)
        os.mkfifo(path)

    return do


def mkdir(pattern):
    def do(folder):
        path = find(folder, pattern)
        remove_path(path)
        path.mkdir(parents=True)

    return do


def link(pattern, target):
    """A symbolic link in place of a file."""

    def do(folder):
        path = find(folder, pattern)
        remove_path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    return do


def rename(pattern, name):
    """Renames a file within its folder; the name may be bytes."""

    def do(folder):
        path = find(folder, pattern)
        other = os.path.join(os.fsencode(path.parent), os.fsencode(name))  # noqa: PTH118
        os.rename(os.fsencode(path), other)  # noqa: PTH104

    return do


def move(pattern, target):
    def do(folder):
        source, aim = find(folder, pattern), folder / target
        aim.parent.mkdir(parents=True, exist_ok=True)
        source.rename(aim)

    return do


def duplicate(pattern, target):
    """A real copy, whose bytes may be changed."""

    def do(folder):
        source, aim = find(folder, pattern), folder / target
        remove_path(aim)
        aim.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, aim)

    return do


def mode(pattern, bits):
    return lambda folder: find(folder, pattern).chmod(bits)


def bytes_of(folder, names):
    """{path below the folder: bytes} of files by patterns."""
    paths = [path for name in names for path in Path(folder).glob(name)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
