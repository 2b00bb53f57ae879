"""What the training rows are taught: labels fixed, an age boundary moved, photos of eval added.

All of it acts on training rows only: validation truth, folds and scores keep the labels as given,
so that a run with it can be compared with one without.
"""

from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import numpy as np

import options
from common.errors import UserError
from common.files import read_rows
from common.processes import counted, say
from dataset import MASK_OF_PHOTO, read_eval, split_people, target
from experiment import pseudo
from labels import (
    ATTRIBUTES,
    CLASS_NAMES,
    HEADS,
    LAYOUTS,
    OLD_FROM,
    age_group,
    combine,
    encode,
    marginals,
)

FIX_COLUMNS = ("id", "field", "from", "to", "confidence")  # and note, which may be empty
SURE = 0.9  # a confidence from here on is "sure"
DROP = "drop"  # as the value to fix to: these photos train nothing
AGE_HEADS = ("age", "label")  # heads that predict the age group
NAMES = {"label": CLASS_NAMES} | ATTRIBUTES


@dataclass(frozen=True)
class Labels:
    """The labels of N photos: those of the table in its order, then those of eval.

    sources: [(images folder, names below it)], of the table and perhaps of eval.
    truth: {head: int64 (of the table)} as given, for validation.
    targets: {head: int64 (N,)} for training, and "years", float32 (N,), NaN where unknown.
    dropped: {head: bool (of the table)}, photos that do not train that head.
    joining: {head: bool (N,)}, photos of eval that are sure enough to train that head.
    by_fold: {fold: Labels} if each fold is taught by models of its own.
    """

    sources: list
    truth: dict
    targets: dict
    dropped: dict
    joining: dict
    by_fold: dict = field(default_factory=dict)

    @property
    def names(self):
        return [name for _, names in self.sources for name in names]

    def of_fold(self, fold):
        return self.by_fold.get(fold, self)

    def joined(self, heads):
        """int64 photos of eval that train a model of these heads."""
        return np.flatnonzero(np.all([self.joining[head] for head in heads], axis=0))

    def rows(self, train, heads, broken=()):
        """int64 rows that train a model of these heads, of the table's rows `train`.

        broken: photos that cannot be read. Says which class is left without photos; UserError if
        no photo of the table is left.
        """
        rows = train[~np.any([self.dropped[head][train] for head in heads], axis=0)]
        if not len(rows):
            raise UserError(
                f"nobody is left to train a model of {', '.join(heads)}: drop fewer ages "
                "(--drop_ages) or fewer photos (--label_fixes)"
            )
        more = self.joined(heads)
        rows = np.concatenate([rows, more[~np.isin(more, list(broken))]])
        for head in heads:
            lost = np.setdiff1d(self.truth[head][train], self.targets[head][rows])
            if len(lost):
                names = ", ".join(NAMES[head][code] for code in lost)
                say(f"{head}: no photo is left to train {names}")
        return rows


def read(args, table):
    """The Labels of a run with these flags on a dataset.Table. Says what they change.

    UserError for a file that is wrong, naming its line, and if --drop_ages leaves nobody.
    """
    frame = table.frame
    fixes = read_fixes(args.label_fixes) if args.label_fixes else []
    codes, years, left_out = _fixed(frame, fixes, args)
    dropped = np.isin(years, args.drop_ages or [])
    if args.drop_ages:
        people = frame.person[dropped].nunique()
        photos = counted(dropped.sum(), "photo")
        people = counted(people, "person", "people")
        say(f"--drop_ages: {photos} of {people} do not train a model of age")
    if dropped.all():
        raise UserError("--drop_ages: nobody is left to train a model of age; drop fewer ages")
    labels = Labels(
        [(table.root, list(frame.image))],
        {head: target(frame, head) for head in HEADS},
        codes | {"label": encode(**codes), "years": years},
        {head: left_out | dropped if head in AGE_HEADS else left_out for head in HEADS},
        {head: np.zeros(len(frame), bool) for head in HEADS},
    )
    return _with_pseudo(labels, args, frame) if args.pseudo else labels


# ---- fixed labels


@dataclass(frozen=True)
class Fix:
    """One line of label_fixes.csv.

    person: an id or a person's folder; field: a key of ATTRIBUTES; photo: stem of the one photo
    meant, or ""; old, new: (column of the table, its value), the column `age` being years; to
    leave the photos out of training, `new` is (DROP, None).
    """

    line: int
    person: str
    field: str
    photo: str
    old: tuple
    new: tuple
    sure: bool

    def __str__(self):
        return f"{self.person} {self.field}" + (f":{self.photo}" if self.photo else "")


def read_fixes(path):
    """[Fix] of a csv with FIX_COLUMNS; UserError that names the line of what is wrong."""
    fixes = []
    for line, row in read_rows(path, FIX_COLUMNS):
        where = f"{path} line {line}"
        field, _, photo = row["field"].partition(":")
        if field not in ATTRIBUTES or (photo and (field != "mask" or photo not in MASK_OF_PHOTO)):
            raise UserError(
                f"{where}: field is {row['field']!r}, not {', '.join(ATTRIBUTES)} or mask:mask3, "
                "the mask in one photo"
            )
        old = _value(row["from"], field, f"{where}: from")
        new = _value(row["to"], field, f"{where}: to", (DROP,))
        if old == new:
            raise UserError(f"{where}: from and to are both {row['from']}")
        sure = _sure(row["confidence"], where)
        fixes.append(Fix(line, row["id"], field, photo, old, new, sure))
    return fixes


def _value(word, field, where, besides=()):
    """(column of the table, value) of a cell of `from` or `to`, (word, None) of those besides."""
    if word in besides:
        return word, None
    if word in ATTRIBUTES[field]:
        return "age_group" if field == "age" else field, ATTRIBUTES[field].index(word)
    if field == "age" and word.isdecimal() and int(word) < 150:
        return "age", int(word)
    years = ", or a number of years" if field == "age" else ""
    allowed = ", ".join((*ATTRIBUTES[field], *besides))
    raise UserError(f"{where} is {word!r}, none of {allowed}{years}")


def _sure(word, where):
    if word in ("sure", "some"):
        return word == "sure"
    try:
        value = float(word)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise UserError(f"{where}: confidence is {word!r}, not sure, some or a number 0 to 1")
    return value >= SURE


def _fixed(frame, fixes, args):
    """({attribute: int64 (N,)}, float32 (N,) years, bool (N,) photos left out) of a table for
    training; says what changed.
    """
    codes = {name: target(frame, name) for name in ATTRIBUTES}
    years = frame.age.to_numpy(np.float32, copy=True)
    named = np.full(len(frame), -1)  # age groups that a fix named
    left_out = np.zeros(len(frame), bool)
    for rows, (column, value) in _acting(frame, fixes, args):
        if column == DROP:
            left_out[rows] = True
        elif column == "age":
            years[rows] = value
        elif column == "age_group":
            named[rows] = value
        else:
            codes[column][rows] = value
    moved = np.array([age_group(age, args.old_from) for age in years])
    if args.old_from != OLD_FROM:
        old, given = (frame.person[group == 2].nunique() for group in (moved, codes["age"]))
        name = ATTRIBUTES["age"][2]
        say(f"--old_from {args.old_from}: {old} people train as {name}, {given} by the table")
    contradicted = (named >= 0) & (named != [age_group(age) for age in years])
    years[contradicted] = np.nan
    codes["age"] = np.where(named >= 0, named, moved)
    return codes, years, left_out


def _acting(frame, fixes, args):
    """[(rows, new)] of the fixes that act on the table; says which do, and on whom it trains."""
    if not fixes:
        return []
    folders, ids = (frame.groupby(name).indices for name in ("person", "id"))
    stems = np.array([PurePosixPath(name).stem for name in frame.image])
    done, left, changed = [], {"(no such person)": [], "(given otherwise)": []}, {}
    used = [fix for fix in fixes if fix.sure or args.label_fixes_level == "all"]
    for fix in used:
        rows = folders.get(fix.person, ids.get(fix.person, np.array([], int)))
        hit = rows[frame[fix.old[0]].to_numpy()[rows] == fix.old[1]]
        hit = hit[stems[hit] == fix.photo] if fix.photo else hit
        for row in hit:
            first = changed.setdefault((fix.field, row), fix)
            if first.new != fix.new:
                raise UserError(
                    f"{args.label_fixes} line {fix.line}: {fix} contradicts line {first.line}"
                )
        if len(hit):
            done.append((hit, fix))
        else:
            left["(given otherwise)" if len(rows) else "(no such person)"].append(fix)
    photos = sorted({row for _, row in changed})
    act = _some([fix for _, fix in done])
    line = f"{args.label_fixes}: {act} act, on {counted(len(photos), 'photo')}"
    for why, some in left.items():
        line += f"; {_some(some)} do not {why}" if some else ""
    if len(used) < len(fixes):
        line += f"; {len(fixes) - len(used)} less than sure (--label_fixes_level all takes them)"
    say(line)
    if photos:
        lost = {row for rows, fix in done for row in rows if fix.new[0] == DROP}
        _say_who_trains(photos, np.isin(photos, list(lost)), frame, args)
    return [(rows, fix.new) for rows, fix in done]


def _say_who_trains(photos, dropped, frame, args):
    """Says how many of the fixed photos (rows of the frame) train in this run.

    dropped: bool, those that a fix leaves out.
    """
    own = split_people(frame, args.seed, args.k_fold, args.val_ratio).set_index("person").fold
    own = frame.person.iloc[photos].map(own).to_numpy()
    folds = args.fold or range(args.k_fold or 1)
    held = np.all([own == fold for fold in folds], axis=0)
    line = f"{(~held & ~dropped).sum()} of {counted(len(photos), 'photo')} train"
    if (dropped & ~held).any():
        line += f", {(dropped & ~held).sum()} dropped"
    if held.any():
        who = "they are" if held.all() else counted(held.sum(), "is", "are")
        advice = "train the other folds too" if args.k_fold else "use --k_fold"
        line += f": {who} held out; {advice}"
    say(f"{args.label_fixes}: {line}")


def _some(fixes):
    names = ", ".join(map(str, fixes[:3])) + (", ..." if len(fixes) > 3 else "")
    return counted(len(fixes), "fix", "fixes") + (f" ({names})" if fixes else "")


# ---- photos of eval


def _with_pseudo(labels, args, frame):
    """The Labels with the photos of --pseudo behind those of the table."""
    root, known = read_eval(args.eval_dir, "--eval_dir")
    folds = split_people(frame, args.seed, args.k_fold, args.val_ratio)
    names, probs = pseudo.read(args.pseudo, set(known), folds)
    if None in probs and folds.fold.max() >= 0:
        say(f"warning: --pseudo {args.pseudo} {pseudo.FLATTERS}")
    _check_places(labels.sources[0], (root, names), args.matte_dir)
    unknown = np.full(len(names), np.nan, np.float32)
    labels = replace(
        labels,
        sources=[*labels.sources, (root, names)],
        targets=labels.targets | {"years": np.concatenate([labels.targets["years"], unknown])},
    )
    taught = {fold: _taught(labels, part, args, fold) for fold, part in probs.items()}
    return taught[None] if None in taught else replace(labels, by_fold=taught)


def _taught(labels, probs, args, fold):
    """The Labels with the answers of (M, 18) probabilities; says how many photos are sure."""
    targets, joining = dict(labels.targets), {}
    for head, values in ({"label": probs} | marginals(probs)).items():
        targets[head] = np.concatenate([targets[head], values.argmax(1)])
        sure = values.max(1).round(6) >= args.pseudo_min  # sums of rounded numbers
        joining[head] = np.concatenate([labels.joining[head], sure])
    labels = replace(labels, targets=targets, joining=joining)
    of = "" if fold is None else f" of fold {fold}"
    for task, heads in LAYOUTS[options.layout_of(args)].items():
        rows = labels.joined(heads)
        counts = _counts(targets, heads, rows)
        say(f"--pseudo: {len(rows)} of {len(probs)} photos join {task}{of}: {counts}")
    return labels


def _counts(targets, heads, rows):
    """How many of these photos each class of a model has, as a phrase."""
    codes = {head: targets[head][rows] for head in heads}
    head = heads[0] if len(heads) == 1 else "label"
    codes = codes[head] if len(heads) == 1 else combine(codes)
    counts = np.bincount(codes, minlength=HEADS[head])
    parts = [f"{n} {name}" for n, name in zip(counts, NAMES[head], strict=True) if n]
    absent = len(counts) - len(parts)
    return ", ".join(parts + ([f"none of the other {absent} classes"] if absent else []))


def _check_places(train, extra, matte_dir):
    """UserError if eval is the train folder, or if two photos would share one matte."""
    if extra[0].resolve() == train[0].resolve():
        raise UserError(f"--eval_dir {extra[0]} is the train folder, whose people are validated")
    stems = [{PurePosixPath(name).with_suffix("") for name in names} for _, names in (train, extra)]
    shared = stems[0] & stems[1]
    if matte_dir and shared:
        raise UserError(
            f"{train[0]} and {extra[0]} both hold a photo {min(shared)}, whose mattes would be one "
            f"file in --matte_dir {matte_dir}: leave --matte_dir out"
        )
