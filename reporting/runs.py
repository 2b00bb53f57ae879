"""Groups of finished runs, and the evidence that they are: scores, comparisons, mistakes."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

import metrics
from common.errors import UserError
from dataset import Table
from experiment.comparison import compare, intervals, verdict
from experiment.reader import check_same, read_run
from labels import CLASS_NAMES, decode
from options import LAYOUT_FLAGS, RUNTIME_FLAGS, parse_args, text_of

PLAIN = {"tta": "none", "vote": "off", "decision": "argmax"}  # of inference.py --oof, if not said
CHANGE = ["option", "from", "to", "conditions"]
DIFFERENCE = ["difference", "low", "high"]


@dataclass
class Group:
    """Runs of one configuration with different seeds, seen as one."""

    name: str
    runs: list

    @cached_property
    def options(self):
        """{flag: text} of the first run, the usual value of a flag that came after it, and of a
        file also what it held; the flags of the layout are one option, `layout`, which also names
        the runs of an ensemble.
        """
        config, hidden = self.runs[0].config, RUNTIME_FLAGS.union(LAYOUT_FLAGS, {"seed"})
        given = vars(parse_args([])) | config["options"]
        options = {k: text_of(value) for k, value in given.items() if k not in hidden}
        for name, digest in config["data"].get("files", {}).items():
            options[name] += f" ({digest[:6]})"
        members = options.pop("ensemble", "")
        layout = config["layout"] + (f" of {members}" if members else "")
        return {"layout": layout} | PLAIN | options

    @cached_property
    def results(self):
        """metrics.score() of each seed."""
        return [metrics.score(run.oof.label, run.probs) for run in self.runs]

    @property
    def extras(self):
        """What has no interval, means over the seeds, NaN if unknown: the standard deviation of
        macro F1 over them; macro F1 of the last epochs, not those kept; seconds.
        """
        return {
            "sd_over_seeds": pd.Series([result["macro_f1"] for result in self.results]).std(),
            "last_epoch": float(np.mean([run.last_epoch for run in self.runs])),
            "calibration_error": float(np.mean([result["ece"] for result in self.results])),
            "seconds": float(np.mean([run.seconds for run in self.runs])),
        }


def read_groups(arguments):
    """[Group] of the words after --model_dir; `a,b` is one group of two seeds. All are cut to the
    folds that all have, and their names say if some are missing. UserError if a run is not
    finished, or if they are about different images, people or labels.
    """
    groups = []
    for words in arguments:
        if not all(words.split(",")):
            raise UserError(f"--model_dir {words}: a name beside a comma is empty; leave it out")
        seeds = [read_run(folder) for folder in words.split(",")]
        _check_seeds(words, seeds)
        groups.append(Group(seeds[0].folder.absolute().name, seeds))  # "." has a name too
    names, firsts = [group.name for group in groups], [group.runs[0] for group in groups]
    every = [run for group in groups for run in group.runs]
    folders = [run.folder.resolve() for run in every]
    missing = sorted({fold for run in every for fold in run.missing})
    for run in every:
        run.leave_out(missing)
    for run in every[1:]:
        check_same(firsts[0], run)
    for run, folder in zip(every, folders, strict=True):
        if folders.count(folder) > 1:
            raise UserError(f"--model_dir names {run.folder} twice; give each run once")
    for group, first in zip(groups, firsts, strict=True):
        if names.count(group.name) > 1:
            group.name = str(first.folder)
        if first.missing:
            done = first.oof.fold.nunique()
            group.name += f" ({done} of {done + len(first.missing)} folds)"
    return groups


def _check_seeds(words, runs):
    """UserError unless runs differ in the seed alone, which the names in an ensemble may say."""
    alone = [Group("", [run]) for run in runs]
    for name in differing(alone):
        values = dict.fromkeys(f"{group.options.get(name)}" for group in alone)
        # Numbers but those of the weights, as in a-s1=0.5.
        if name == "layout" and len({re.sub(r"(?<![=.\d])\d+", "", v) for v in values}) == 1:
            continue
        raise UserError(
            f"--model_dir {words}: not seeds of one configuration, {name} is "
            f"{' and '.join(values)}; give them as runs of their own, with a space between"
        )
    if len({run.config["seed"] for run in runs}) < len(runs):
        raise UserError(f"--model_dir {words}: two have the same seed; give one of them")


def differing(groups):
    """Names of the options that are not the same in all groups."""
    names = dict.fromkeys(name for group in groups for name in group.options)
    return [name for name in names if len({group.options.get(name) for group in groups}) > 1]


def distinct(groups):
    """The groups of different options; of seeds that no comma joins the first."""
    found = {}
    for group in groups:
        found.setdefault(frozenset(group.options.items()), group)
    return list(found.values())


def matched_pairs(groups):
    """{(option, from, to): [(group a, group b)]} of groups that differ in one option only, where
    `from` is the value that comes first in the order of the groups. Seeds are no conditions.
    """
    pairs = {}
    for a, b in combinations(distinct(groups), 2):
        changed = differing([a, b])
        if len(changed) == 1:
            old, new = (group.options.get(changed[0]) for group in (a, b))
            if (changed[0], new, old) in pairs:
                a, b, old, new = b, a, new, old
            pairs.setdefault((changed[0], old, new), []).append((a, b))
    return pairs


@dataclass
class Evidence:
    """All that the sections are made of; what is costly is computed once, when it is asked for."""

    data: Table
    matte_dir: Path  # may be missing
    seed: int  # of the choice of photos
    groups: list  # none for a look at the data
    baseline: Group
    rows: pd.DataFrame  # those of data.frame in the order of the runs' images
    folder: str = ""  # where the csv files lie, beside the page
    tables: dict = field(default_factory=dict)  # {name: frame}, these files

    @cached_property
    def scores(self):
        """{run: {measure: (value, low, high)}}, by intervals."""
        people = self.rows.label, self.rows.person
        return {group.name: intervals(*people, predictions([group])) for group in self.groups}

    def _compare(self, before, after, conditions=0):
        """compare of two lists of groups. Many comparisons take many draws: with few the least p
        that there is would be too large after Holm.
        """
        people = self.rows.label, self.rows.person
        how = {"draws": max(2000, 200 * len(self.groups)), "conditions": conditions}
        return compare(*people, predictions(before), predictions(after), **how)

    @cached_property
    def compared(self):
        """{run: compare of the baseline and it}, judged by macro F1, the best run first."""
        others = [group for group in self.groups if group is not self.baseline]
        found = {group.name: self._compare([self.baseline], [group]) for group in others}
        self._judge([rows["macro_f1"] for rows in found.values()])
        return dict(sorted(found.items(), key=lambda item: -item[1]["macro_f1"]["difference"]))

    @property
    def verdicts(self):
        """[the figures of macro F1, and the run] of `compared`."""
        return [{"run": run} | rows["macro_f1"] for run, rows in self.compared.items()]

    @cached_property
    def changes(self):
        """[every change of one option, all else equal, pooled over the conditions it was tried in]:
        option, from, to, conditions, and the figures of macro F1.
        """
        lines = []
        for change, pairs in matched_pairs(self.groups).items():
            seeds = {len(group.runs) for pair in pairs for group in pair}
            # Unequal numbers of seeds make no pairs: then each condition stands alone.
            for pool in [pairs] if len(seeds) == 1 else [[pair] for pair in pairs]:
                conditions = len(pool) if len(pool) > 1 else 0
                row = self._compare(*zip(*pool, strict=True), conditions)["macro_f1"]
                lines.append(dict(zip(CHANGE, (*change, len(pool)), strict=True)) | row)
        self._judge(lines)
        return lines

    def _judge(self, lines):
        """Adds `holm` and `verdict` to rows of compare."""
        for line, p in zip(lines, holm([line["p"] for line in lines]), strict=True):
            line["holm"] = p
            line["verdict"] = verdict(line, self.rows.person.nunique())


def predictions(groups):
    """One (N,) array a seed of all these groups."""
    return [run.predictions for group in groups for run in group.runs]


def holm(p):
    """Holm's step-down p values (1979), a Series as `p`: the chance of any false alarm."""
    p = pd.Series(p, dtype=float).sort_values()
    return (p * np.arange(len(p), 0, -1)).cummax().clip(upper=1).sort_index()


def outcomes(rows, group):
    """What the group's first seed says of each photo, the surest first: a frame (image, person,
    age, label, prediction, p_prediction, p_label, run), and is it wrong, in the label and each
    attribute? A mean over seeds would be an ensemble, and score as one.
    """
    probs, labels = group.runs[0].probs, rows.label.to_numpy(int)
    found = probs.argmax(1)
    true, said = decode(labels), decode(found)
    frame = rows[["image", "person"]].assign(
        age=rows.age.astype(int),
        label=np.take(CLASS_NAMES, labels),
        prediction=np.take(CLASS_NAMES, found),
        p_prediction=probs.max(1).round(4),
        p_label=probs[np.arange(len(rows)), labels].round(4),
        run=group.name,
        wrong=labels != found,
        **{f"wrong_{name}": true[name] != said[name] for name in true},
    )
    return frame.sort_values("p_prediction", ascending=False, kind="stable")
