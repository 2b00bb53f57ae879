"""Writes the report: one HTML page on the data and on the runs given, and every table as csv.

With --data_dir alone it is a look at the data. With runs it answers whether one is better than
another, by paired intervals over people, and shows where they err and where they look.
"""

import argparse
import shlex
import sys
from pathlib import Path

import pandas as pd

from common import flags
from common.errors import UserError, run_command
from common.processes import say
from dataset import read_train
from experiment import reader
from labels import CLASS_NAMES, CLASSES
from photos.reading import default_matte_dir
from reporting import compare_section, data_section, errors_section, page, runs, runs_section

LARGEST = 8  # MB of a page


def parse_args(argv=None):
    parser = flags.Parser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    what = parser.add_argument_group("what to report on")
    what.add_argument(
        "--data_dir", default="data/train", help="folder with train.csv, or its images folder"
    )
    what.add_argument(
        "--model_dir", nargs="+", default=[], metavar="RUN",
        help="runs of the same people; seeds of one configuration are joined by commas: a,a2,a3",
    )  # fmt: skip
    what.add_argument(
        "--baseline", metavar="RUN", help="the run to compare with (None: the first of --model_dir)"
    )
    what.add_argument(
        "--matte_dir",
        help="folder of the mattes (None: that of the runs, else mattes beside the images folder)",
    )
    where = parser.add_argument_group("where to")
    where.add_argument("--out", default="report.html", help="the page; its tables lie beside it")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--cam_images", type=int, default=2, metavar="N",
        help="photos of each class that show where the models look, 0 for none",
    )  # fmt: skip
    how.add_argument("--seed", type=int, default=0, help="of the photos that are shown")
    args = parser.parse_args(argv)
    if args.cam_images < 0:
        parser.error(f"--cam_images {args.cam_images}: give 0 or more")
    if args.baseline and not args.model_dir:
        parser.error("--baseline needs runs to compare with it (--model_dir)")
    return args


def main(argv=None):
    words = sys.argv[1:] if argv is None else argv
    args = parse_args(words)
    groups = runs.read_groups(args.model_dir)
    baseline = find_baseline(groups, args.baseline)
    data = read_train(args.data_dir)
    rows = reader.check_table(data.frame, groups[0].runs[0]) if groups else None
    matte_dir = find_mattes(args.matte_dir, groups, data)
    tables, sections = {}, []
    if groups:
        labels, persons = rows.label.to_numpy(int), rows.person.to_numpy()
        say(f"scoring {len(groups)} runs over {len(set(persons))} people")
        scored = {group.name: runs.scores(labels, persons, group) for group in groups}
        compared = compare_section.compare_all(rows, groups, baseline)
        changes = compare_section.one_option(rows, groups)
        headline = compare_section.headline(groups, scored, baseline, compared, changes)
        sections.append(runs_section.build(tables, rows, groups, scored, defaults()))
        if compared:
            compare = (tables, rows, data, groups, scored, baseline, compared, changes)
            sections.insert(0, compare_section.build(*compare))
        best = max(groups, key=lambda group: scored[group.name]["measures"]["macro_f1"][0])
        sections.append(errors_section.build_errors(tables, rows, data, groups, best))
        truth = wrong_people(data, set(persons))
        sections.append(errors_section.build_suspects(tables, rows, data, groups, truth))
        if args.cam_images:
            sections.append(where_it_looks(tables, rows, data, groups, matte_dir, args))
    else:
        headline = data_headline(data)
    say(f"reading {len(data.frame):,} photos")
    sections.append(data_section.build(tables, data, matte_dir, args.seed))
    finish(args, words, headline, [part for part in sections if part], tables)


def find_baseline(groups, name):
    """The Group that --baseline names by folder or by name; the first one without it."""
    if not name:
        return groups[0] if groups else None
    for group in groups:
        folders = [one.folder.resolve() for one in group.runs]
        if group.name == name or Path(name.split(",")[0]).resolve() in folders:
            return group
    raise UserError(f"--baseline {name} is none of the runs in --model_dir")


def defaults():
    """{flag: text} of train.py's flags."""
    import options  # brings torch, which a look at the data does not need

    parser = flags.Parser()
    options.add_to(parser)
    values = {flag: runs.option_text(value) for flag, value in vars(parser.parse_args([])).items()}
    return values | {"layout": "joint"} | runs.PLAIN


def wrong_people(data, people):
    """Which of `people` have a wrong gender or age, where a drawn competition tells; or None."""
    path = Path(data.root).resolve().parent.parent / "truth_train.csv"
    if not path.is_file():
        return None
    truth = pd.read_csv(path, dtype={"path": str})
    if "noisy" not in truth or not set(truth.path) >= set(data.frame.person):
        return None  # of some other data
    return sorted(people.intersection(truth.path[truth.noisy == 1]))


def find_mattes(given, groups, data):
    """The folder of the mattes: as given, else that of the runs, else beside the images."""
    if given and not Path(given).is_dir():
        raise UserError(f"--matte_dir {given} is not a folder; leave it out for the default")
    known = [run.config.get("options", {}).get("matte_dir") for g in groups for run in g.runs]
    known = [place for place in known if place and Path(place).is_dir()]
    return Path(given or (known or [default_matte_dir(data.root)])[0])


def where_it_looks(tables, rows, data, groups, matte_dir, args):
    from reporting import gradcam

    return gradcam.build(tables, rows, data, groups, matte_dir, args.cam_images, args.seed)


def data_headline(data):
    """The headline of a page without runs."""
    frame = data.frame
    counts = frame.groupby("label").person.nunique().reindex(range(CLASSES), fill_value=0)
    rarest = CLASS_NAMES[counts.idxmin()]
    return {
        "main": f"{frame.person.nunique():,} people, {len(frame):,} photos; the rarest class, "
        f"{rarest}, has {counts.min():,} people",
        "points": [],
        "notes": ["Give runs of train.py (--model_dir) to see which is better, and by how much."],
    }


def finish(args, words, headline, sections, tables):
    count = len(args.model_dir)
    what = args.data_dir if not count else "one run" if count == 1 else f"{count} runs"
    foot = [f"python report.py {shlex.join(map(str, words))}"]
    size = page.write(args.out, f"Report on {what}", headline, sections, tables, foot) / 1e6
    say(headline["main"])
    say(f"wrote {args.out} ({size:.1f} MB) and {len(tables)} tables beside it")
    if size > LARGEST:
        say(f"note: the page is above {LARGEST} MB; give fewer runs or a smaller --cam_images")


if __name__ == "__main__":
    run_command(main)
