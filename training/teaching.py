"""What the training rows are taught: labels fixed, an age boundary moved.

It acts on training rows only: validation truth, folds and scores keep the labels as given, so that
a run with it can be compared with one without.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from common.errors import UserError
from common.files import read_rows
from common.processes import counted, say
from common.schema import SHARE
from dataset import MASK_OF_PHOTO, target
from labels import ATTRIBUTES, CLASS_NAMES, HEADS, OLD_FROM, age_group, encode

FIX_COLUMNS = ("id", "field", "from", "to", "confidence")  # and note, which may be empty
SURE = 0.9  # a confidence from here on is "sure"
DROP = "drop"  # as the value to fix to: these photos train nothing
AGE_HEADS = ("age", "label")  # heads that predict the age group
NAMES = {"label": CLASS_NAMES} | ATTRIBUTES


@dataclass(frozen=True)
class Labels:
    """The labels of the N photos of a table, in its order.

    truth: {head: int64 (N,)} as given, for validation.
    targets: {head: int64 (N,)} for training, and "years", float32 (N,), NaN where unknown.
    teaches: {head: bool (N,)}, photos that may train that head.
    """

    truth: dict
    targets: dict
    teaches: dict

    def rows(self, train, heads):
        """int64 rows that train a model of these heads, of the table's rows `train`. Says which
        class is left without photos; UserError if no photo is left.
        """
        rows = train[np.all([self.teaches[head][train] for head in heads], axis=0)]
        if not len(rows):
            raise UserError(
                f"nobody is left to train a model of {', '.join(heads)}: drop fewer ages "
                "(--drop_ages) or fewer photos (--label_fixes)"
            )
        for head in heads:
            lost = np.setdiff1d(self.truth[head][train], self.targets[head][rows])
            if len(lost):
                names = ", ".join(NAMES[head][code] for code in lost)
                say(f"{head}: no photo is left to train {names}")
        return rows


def read(args, table, folds):
    """The Labels of a run of these flags on a dataset.Table; says what they change. folds: frame
    (person, fold). UserError for a wrong file, naming its line, or if --drop_ages leaves nobody.
    """
    frame = table.frame
    codes = {name: target(frame, name) for name in ATTRIBUTES}
    years = frame.age.to_numpy(np.float32, copy=True)
    named, taught = np.full(len(frame), -1), np.ones(len(frame), bool)  # age groups of fixes
    arrays = codes | {"age": years, "age_group": named}
    acting = _acting(args, frame) if args.label_fixes else {}
    for (_, row), fix in acting.items():
        column, value = fix.new
        if column == DROP:
            taught[row] = False
        else:
            arrays[column][row] = value
    if acting:
        photos = sorted({row for _, row in acting})
        trained = _who_trains(args, frame.person.iloc[photos], ~taught[photos], folds)
        say(f"{args.label_fixes}: {trained}")
    given, moved = codes["age"], np.array([age_group(age, args.old_from) for age in years])
    codes["age"] = np.where(named >= 0, named, moved)
    if args.old_from != OLD_FROM:
        old, given = (frame.person[group == 2].nunique() for group in (codes["age"], given))
        name = ATTRIBUTES["age"][2]
        say(f"--old_from {args.old_from}: {old} people train as {name}, {given} by the table")
    years[(named >= 0) & (named != [age_group(age) for age in years])] = np.nan  # contradicted
    dropped = np.isin(years, args.drop_ages or [])
    if args.drop_ages:
        people = counted(frame.person[dropped].nunique(), "person", "people")
        photos = counted(dropped.sum(), "photo")
        say(f"--drop_ages: {photos} of {people} do not train a model of age")
    if dropped.all():
        raise UserError("--drop_ages: nobody is left to train a model of age; drop fewer ages")
    return Labels(
        {head: target(frame, head) for head in HEADS},
        codes | {"label": encode(**codes), "years": years},
        {head: taught & ~dropped if head in AGE_HEADS else taught for head in HEADS},
    )


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
        word = row["confidence"]
        try:
            sure = SHARE({"sure": 1, "some": 0}.get(word, word)) >= SURE
        except UserError as error:
            raise UserError(f"{where}: confidence {error}, nor sure or some") from None
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


def _acting(args, frame):
    """{(field, row): Fix} of what the fixes change in the table; says which of them act."""
    fixes = read_fixes(args.label_fixes)
    used = [fix for fix in fixes if fix.sure or args.label_fixes_level == "all"]
    whose = frame.groupby("id").indices | frame.groupby("person").indices
    stems = np.array([PurePosixPath(name).stem for name in frame.image])
    changed, done, left = {}, [], {"(no such person)": [], "(given otherwise)": []}
    for fix in used:
        rows = whose.get(fix.person, np.array([], int))
        hit = rows[frame[fix.old[0]].to_numpy()[rows] == fix.old[1]]
        hit = hit[stems[hit] == fix.photo] if fix.photo else hit
        if frame.person.iloc[hit].nunique() > 1:
            raise UserError(
                f"{args.label_fixes} line {fix.line}: several people have the id {fix.person}; "
                "give the folder of one"
            )
        for row in hit:
            first = changed.setdefault((fix.field, row), fix)
            if first.new != fix.new:
                raise UserError(
                    f"{args.label_fixes} line {fix.line}: {fix} contradicts line {first.line}; "
                    "remove one of them"
                )
        why = "(given otherwise)" if len(rows) else "(no such person)"
        (done if len(hit) else left[why]).append(fix)
    line = f"{_some(done)} applied, on {counted(len({row for _, row in changed}), 'photo')}"
    line += "".join(f"; {_some(some)} not applied {why}" for why, some in left.items() if some)
    if len(used) < len(fixes):
        line += f"; {len(fixes) - len(used)} less than sure (--label_fixes_level all takes them)"
    say(f"{args.label_fixes}: {line}")
    return changed


def _who_trains(args, people, dropped, folds):
    """How many fixed photos of `people` train, in words; dropped: bool, those a fix leaves out."""
    own = people.map(folds.set_index("person").fold).to_numpy()
    held = np.all([own == fold for fold in args.fold or range(args.k_fold or 1)], axis=0)
    line = f"{(~held & ~dropped).sum()} of {counted(len(own), 'photo')} train"
    if (dropped & ~held).any():
        line += f", {(dropped & ~held).sum()} dropped"
    if held.any():
        who = "they are" if held.all() else counted(held.sum(), "is", "are")
        advice = "train the other folds too" if args.k_fold else "use --k_fold"
        line += f": {who} held out; {advice}"
    return line


def _some(fixes):
    names = ", ".join(map(str, fixes[:3])) + (", ..." if len(fixes) > 3 else "")
    return counted(len(fixes), "fix", "fixes") + (f" ({names})" if fixes else "")
