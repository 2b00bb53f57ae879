"""The report as a whole: reads the data and the runs, builds the sections, writes the page."""

import shlex
from pathlib import Path

from common.errors import UserError
from common.files import write_csv, write_text
from common.processes import counted, say
from dataset import read_train
from experiment import reader
from photos.reading import default_matte_dir
from reporting import comparison, data_section, runs, suspects
from reporting.page import html

TABLES = {"runs", "one_option", "comparison", "per_class_f1", "error_by_age", "mistakes"}
TABLES |= {"suspects", "cam_energy"}  # besides that of the data


def write_report(args, argv):
    """Writes args.out and, in a folder beside it, every table. args: of report.parse_args(argv)."""
    evidence, sections, what = gather(args), [], args.data_dir
    data = data_section.build(evidence)
    note = "Give runs of train.py (--model_dir) to see which is better, and by how much."
    headline = {"main": data["intro"], "points": [], "notes": [note]}
    if evidence.groups:
        what, people = counted(len(evidence.groups), "run"), evidence.rows.person.nunique()
        say(f"scoring {what} over {counted(people, 'person', 'people')}")
        headline = comparison.headline(evidence)
        sections = [comparison.build(evidence), comparison.build_each(evidence)]
        sections.append(suspects.build(evidence))
        if args.cam_images:
            from reporting import gradcam  # brings captum's and the models' imports

            sections.append(gradcam.build(evidence, args.cam_images))
    foot = f"python report.py {shlex.join(argv)}"
    text = html.page(f"Report on {what}", headline, [*sections, data], foot).lstrip()
    folder = Path(args.out).parent / evidence.folder
    for name, frame in evidence.tables.items():
        write_csv(folder / f"{name}.csv", frame)
    for name in TABLES - evidence.tables.keys():  # of an older page
        (folder / f"{name}.csv").unlink(missing_ok=True)
    write_text(args.out, text)
    for line in (headline["main"], *headline["points"]):
        say(line)
    size = f"{len(text.encode()) / 1e6:.1f} MB"
    tables = counted(len(evidence.tables), "table")
    say(f"wrote {args.out} ({size}) and {tables} in {folder}")


def gather(args):
    """The Evidence that the flags ask for; UserError if the runs and the data do not fit."""
    groups, data = runs.read_groups(args.model_dir), read_train(args.data_dir)
    baseline = rows = None
    if groups:
        baseline = groups[args.model_dir.index(args.baseline) if args.baseline else 0]
        rows = reader.check_table(data.frame, groups[0].runs[0])
    matte_dir = find_mattes(args.matte_dir, groups, data)
    folder = f"{Path(args.out).stem}_tables"
    return runs.Evidence(data, matte_dir, args.seed, groups, baseline, rows, folder)


def find_mattes(given, groups, data):
    """The folder of the mattes: as given, else that of the runs, else beside the images."""
    if given and not Path(given).is_dir():
        raise UserError(f"--matte_dir {given} is not a folder; leave it out for the default")
    places = [run.config["options"].get("matte_dir") for group in groups for run in group.runs]
    known = [place for place in (given, *places) if place and Path(place).is_dir()]
    return Path(known[0]) if known else default_matte_dir(data.root)
