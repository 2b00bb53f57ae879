"""Finished runs as the report reads them: tables of out-of-fold predictions, options, logs."""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

import metrics
from common.errors import UserError
from experiment.reader import ALL, check_same, read_run
from labels import ATTRIBUTES, CLASS_NAMES, decode

# Options that say where and how fast, not what was learnt.
PLACES = {"name", "seed", "data_dir", "eval_dir", "model_dir", "matte_dir", "cache_dir", "device"}


PLACES |= {"log_interval", "valid_batch_size", "on_error", "resume", "fold"}


LAYOUT = {"split_heads", "shared_backbone"}  # two flags of one choice: config["layout"]
# Options that some folders do not have, and what was done there: those of inference.py --oof are
# unknown to a run of train.py, --keep to an older one.
PLAIN = {"tta": "none", "vote": "off", "decision": "argmax", "keep": "best"}


@dataclass
class Group:
    """Runs of one configuration with different seeds, seen as one."""

    name: str
    runs: list

    @property
    def options(self):
        """{flag: text} of the first run; the flags of the layout are one option, `layout`, which
        also names the runs of an ensemble.
        """
        config = self.runs[0].config
        options = {
            flag: option_text(value)
            for flag, value in config.get("options", {}).items()
            if flag not in PLACES | LAYOUT
        }
        members = options.pop("ensemble", "")
        layout = str(config.get("layout", "?")) + (f" of {members}" if members else "")
        return {"layout": layout} | PLAIN | options

    @property
    def probs(self):
        """(N, 18) of the first seed: a mean over seeds would be an ensemble, and score as one."""
        return self.runs[0].probs

    @property
    def predictions(self):
        """One (N,) array a seed."""
        return [run.predictions for run in self.runs]


def option_text(value):
    """`{"": 3e-4, "age": 1e-4}` as it is typed: `3e-4 age=1e-4`."""
    if isinstance(value, dict):
        parts = {name: option_text(item) for name, item in value.items()}
        return " ".join(f"{name}={text}" if name else text for name, text in parts.items())
    if isinstance(value, (list, tuple)):
        return " ".join(option_text(item) for item in value)
    if isinstance(value, bool) or value is None:
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_groups(arguments):
    """[Group] of the words after --model_dir; `a,b` is one group of two seeds.

    All runs are brought to one order of images. UserError if one is no finished run, or if they
    are about different images, people or labels.
    """
    groups = []
    for words in arguments:
        folders = [word for word in words.split(",") if word]
        if not folders:
            raise UserError(f"--model_dir {words!r} names no run")
        seeds = [read_run(folder) for folder in folders]
        groups.append(Group(seeds[0].folder.name, seeds))
    every = [run for group in groups for run in group.runs]
    for run in every[1:]:
        check_same(every[0], run)
    names = [group.name for group in groups]
    for group in groups:
        if names.count(group.name) > 1:
            group.name = str(group.runs[0].folder)
    if len({group.name for group in groups}) < len(groups):
        raise UserError(f"--model_dir names {groups[-1].name} twice; give each run once")
    return groups


# ---- what the report says of groups


def costs(group):
    """{"seconds", "images_per_s", "wait_share"} of a group's training: seconds of all tasks and
    folds, mean over the seeds; the median of the epochs for the other two. NaN if not logged.
    """
    frames = [log for run in group.runs for key, log in run.logs.items() if key != ALL]
    if not frames:
        return dict.fromkeys(("seconds", "images_per_s", "wait_share"), math.nan)
    log = pd.concat(frames)
    log = log.reindex(columns=["seconds", "images_per_s", "wait_share"])
    return {
        "seconds": log.seconds.sum(min_count=1) / len(group.runs),
        "images_per_s": log.images_per_s.median(),
        "wait_share": log.wait_share.median(),
    }


def last_epoch(group):
    """Macro F1 of the last epochs instead of those kept, mean over the seeds; NaN if unknown."""
    return float(np.mean([run.last_epoch for run in group.runs]))


def differing(groups):
    """Names of the options that are not the same in all groups."""
    names = dict.fromkeys(name for group in groups for name in group.options)
    return [name for name in names if len({group.options.get(name) for group in groups}) > 1]


def matched_pairs(groups):
    """{(option, from, to): [(group a, group b)]} of groups that differ in one option only.

    `from` is the value that comes first in the order of the groups.
    """
    pairs, names = {}, differing(groups)
    for a, b in combinations(groups, 2):
        changed = [name for name in names if a.options.get(name) != b.options.get(name)]
        if len(changed) == 1:
            name = changed[0]
            key = name, a.options.get(name), b.options.get(name)
            back = name, key[2], key[1]
            pair = (b, a) if back in pairs else (a, b)
            pairs.setdefault(back if back in pairs else key, []).append(pair)
    return pairs


def holm(p):
    """Holm's step-down p values (1979): of several comparisons, the chance of any false alarm."""
    p = np.asarray(p, float)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    result = np.empty(len(p))
    result[order] = np.minimum(steps, 1)
    return result


def mistakes(rows, probs):
    """Images that are wrong, the most confident first: a frame (image, person, age, label,
    prediction, p_prediction, p_label, wrong), `wrong` naming the attributes that differ.
    """
    labels, predictions = rows.label.to_numpy(int), probs.argmax(1)
    index = np.arange(len(rows))
    true, predicted = decode(labels), decode(predictions)
    differs = {name: true[name] != predicted[name] for name in ATTRIBUTES}
    wrong = [
        " ".join(name for name in ATTRIBUTES if differs[name][i])
        for i in np.flatnonzero(labels != predictions)
    ]
    table = pd.DataFrame(
        {
            "image": rows.image,
            "person": rows.person,
            "age": rows.age.astype(int),
            "label": [CLASS_NAMES[k] for k in labels],
            "prediction": [CLASS_NAMES[k] for k in predictions],
            "p_prediction": probs[index, predictions].round(4),
            "p_label": probs[index, labels].round(4),
        }
    )[labels != predictions]
    return table.assign(wrong=wrong).sort_values("p_prediction", ascending=False, kind="stable")


def error_by_age(rows, probs):
    """A frame with a row a year of age: age, people, images, and the share of images wrong in
    label, mask, gender and age_group.
    """
    labels, predictions = rows.label.to_numpy(int), probs.argmax(1)
    true, predicted = decode(labels), decode(predictions)
    table = pd.DataFrame({"year": rows.age.to_numpy(int), "person": rows.person.to_numpy()})
    table["label"] = labels != predictions
    for name in ATTRIBUTES:
        table["age_group" if name == "age" else name] = true[name] != predicted[name]
    years = table.groupby("year")
    result = years[["label", "mask", "gender", "age_group"]].mean()
    result.insert(0, "images", years.size())
    result.insert(0, "people", years.person.nunique())
    return result.reset_index().rename(columns={"year": "age"})


def discordant(rows, a, b):
    """(only a right, only b right): rows of `mistakes` of the other group, the surest first.

    a, b: Groups, of which the first seeds are taken.
    """
    labels = rows.label.to_numpy(int)
    right = [group.probs.argmax(1) == labels for group in (a, b)]
    result = []
    for other, keep in ((b, right[0] & ~right[1]), (a, right[1] & ~right[0])):
        wrong = mistakes(rows, other.probs)
        result.append(wrong[wrong.image.isin(rows.image[keep])])
    return result


def scores(labels, persons, group):
    """metrics.intervals of a group, with `sd`, the spread of the macro F1 over its seeds."""
    result = metrics.intervals(labels, persons, group.predictions)
    values = [metrics.macro_f1(labels, run) for run in group.predictions]
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"measures": result, "sd": sd, "seeds": len(values)}
