"""One table: how fast and how lean everything is, against the bare thing that it is made of.

    python scripts/benchmark.py                     the whole table, an hour on 2 cores
    python scripts/benchmark.py --quick             two minutes: fewer photos, fewer rounds
    python scripts/benchmark.py --only "mattes|store"
    python scripts/benchmark.py --models resnet50 convnext_tiny --resize 224 224 --only training
    python scripts/benchmark.py --growth            time and memory at 1,000, 5,000, 20,000 photos

A row measures two things in turn in one run (A B, B A, A B ...), so that a drift of the machine
cancels, and states the median of the rounds, with the lowest and the highest. What is measured
stands in measures.py, the loop that many write in customary.py, the growth in growth.py. Tables go
to the screen and, with a JSON file beside them, to --out.
"""

import argparse
import io
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common.errors import UserError, run_command
from common.files import HOME, write_json, write_text
from common.flags import Option, Parser, number
from common.processes import cores, say

MODELS = ["tf_efficientnet_lite0", "resnet50"]
PACKAGES = ("torch", "timm", "numpy", "opencv-python-headless", "onnxruntime", "pillow")
COLUMNS = ("what", "photos", "ours", "over", "theirs", "figure", "lowest, highest", "to reach")


def pattern(word):
    """--only: a regular expression."""
    try:
        re.compile(word)
    except re.error as error:
        raise UserError(f"{word!r} is not a regular expression ({error})") from None
    return word


FLAGS = {
    "which": [
        Option("only", None, pattern, "the rows whose names this regular expression finds",
               unset="all"),
        Option("quick", False, None, "a tenth of the photos, a third of the rounds, one model"),
        Option("growth", None, number(int, 70), "time and memory at so many photos instead of the "
               "table; without a value 1000 5000 20000", count="*", unset="the table"),
    ],
    "of what": [
        Option("data_dir", None, Path, "train folder whose photos are taken, again and again if "
               "they are too few", unset="a competition drawn into data/"),
        Option("models", MODELS, str, "backbones; all rows have the first", count="+"),
        Option("resize", [128, 96], number(int, 8), "height and width", count=2),
        Option("batch_size", 32, number(int, 1), "photos a step"),
        Option("device", "auto", str, "auto|cpu|cuda|cuda:1 ..."),
        Option("scale", 1.0, number(float, 0, 1, above=True), "share of the photos of each row"),
    ],
    "files": [
        Option("out", Path("output/benchmark"), Path, "writes OUT.md and OUT.json; the growth "
               "OUT_growth.md, .svg and .json"),
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A line of the table.

    measure: of measures.py, called with a Bench and `people`, of seven photos each; over: what it
    is compared with, "" for nothing; reach: the figure to reach, such as "≥ 0.9", or "";
    unit: of the two values; rounds: fewer where a round is long or always alike; difference: the
    figure is the difference of the two values, not their ratio.
    """

    name: str
    measure: Callable
    over: str
    reach: str
    unit: str
    people: int
    rounds: int = 6
    difference: bool = False

    def figure(self, ours, other):
        """What one round tells."""
        if not self.over:
            return ours
        return ours - other if self.difference else ours / other

    def reached(self, figure):
        """Whether the figure is as good as `reach` asks; None if it does not ask."""
        sign, _, bar = self.reach.partition(" ")
        return (figure >= float(bar) if sign == "≥" else figure <= float(bar)) if bar else None


def rows_of(models):
    """[Row] of the whole table."""
    import measures as m

    lite, cold = models[0], partial(m.inference, cold=True)
    epochs = [
        (f"training epoch, {model}", partial(m.epoch, model=model), "bare step, same precision",
         "≥ 0.97", "images/s", 421 if model == lite else 160)
        for model in models
    ]  # fmt: skip
    forward, python = "bare forward, inference_mode", 'python -c "import argparse, numpy"'
    plain = "plain loop: model, optimizer, a batch"
    rows = [
        *epochs,
        ("first epoch, no store", m.first_epoch, "bare step", "≥ 0.85", "images/s", 421),
        ("epoch of three models", m.split_epoch, "bare steps of three", "≥ 0.97", "images/s", 160),
        ("epoch", m.customary_epoch, "customary loop", "≥ 2", "images/s", 160),
        ("one-epoch command", m.one_epoch, "customary script", "≤ 0.5", "s", 80, 4),
        ("inference, files to csv, few photos", cold, forward, "", "images/s", 120, 4),
        ("inference, files to csv", cold, forward, "≥ 0.9", "images/s", 1800, 4),
        ("inference, store to csv", m.inference, forward, "≥ 0.9", "images/s", 1800, 4),
        ("start of inference: all but the forward", m.inference_start, 'python -c "import torch"',
         "≤ 1.3", "s", 120, 4, True),
        ("mattes by u2netp", m.rembg, "bare runs of onnxruntime", "≥ 0.92", "photos/s", 20,
         4),
        ("mattes by GrabCut", m.grabcut, "cv2.grabCut, full size, 5 iterations", "≥ 60",
         "photos/s", 40, 4),
        ("store", m.pixel_store, "cv2.imdecode and resize on all cores", "≥ 0.85", "photos/s", 120),
        ("comparison of two runs, 2,000 draws", m.two_runs, "", "≤ 2", "s", 2700),
        ("--help, mean of the commands", m.helped, python, "≤ 5", "s", 0, 4),
        ("wrong flag, mean of the commands", m.refused, python, "≤ 5", "s", 0, 4),
        ("memory of training", m.training_memory, plain, "≤ 1.3", "MB", 421, 2),
        ("memory of inference", m.inference_memory, plain, "≤ 1.3", "MB", 1800, 2),
    ]  # fmt: skip
    return [Row(*row) for row in rows]


def measured(row, bench, rounds):
    """The rounds of a Row as a dict for JSON."""
    people = bench.scaled(row.people)
    ours, other = row.measure(bench, people)
    pairs = []
    for turn in range(max(1, rounds)):
        order = (ours, other) if turn % 2 == 0 else (other, ours)
        values = {thing: thing() for thing in order if thing}
        pairs.append([float(values[thing]) for thing in (ours, other) if thing])
    figures = [row.figure(*pair, *[None] * (2 - len(pair))) for pair in pairs]
    figure = statistics.median(figures)
    result = {"what": row.name, "photos": 7 * people, "over": row.over, "unit": row.unit}
    result |= {"pairs": pairs, "figure": figure, "figures": figures}
    return result | {"to reach": row.reach, "reached": row.reached(figure)}


def cells(result):
    """A measured row as the texts of COLUMNS."""
    values = [statistics.median(values) for values in zip(*result["pairs"], strict=True)]
    ours, theirs = ([f"{value:.3g} {result['unit']}" for value in values] + [""])[:2]
    figures, reach = result["figures"], result["to reach"]
    verdict = {True: "reached", False: "**missed**", None: ""}[result["reached"]]
    spread = f"{min(figures):.3g}, {max(figures):.3g}" if len(figures) > 1 else "one round"
    photos = f"{result['photos']:,}" if result["photos"] else ""
    return [result["what"], photos, ours, result["over"], theirs, f"{result['figure']:.3g}", spread,
            f"{reach} {verdict}"]  # fmt: skip


def markdown(lines):
    """A table of lists of texts, the first its head."""
    head, *rest = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([head, "|---" * len(lines[0]) + "|", *rest])


def describe(bench):
    """{"machine", "versions", "sizes"}: in words, what the numbers of a table depend on."""
    import torch

    args, cuda = bench.args, bench.device.type == "cuda"
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = [torch.cuda.get_device_name(bench.device)] if cuda else []
    machine += [model[1] if model else platform.machine(), f"{cores()} cores"]
    machine += [f"{torch.get_num_threads()} threads", f"{memory:.0f} GB"]
    machine += [f"load before {os.getloadavg()[0]:.1f}"]
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, cwd=HOME, capture_output=True, text=True).stdout.strip()
    versions = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    sizes = [bench.model, "x".join(map(str, args.resize)), f"batch {args.batch_size}"]
    sizes += [f"{args.scale:g} of the photos"] if args.scale < 1 else []
    parts = {"machine": machine, "sizes": sizes}
    parts["versions"] = [f"python {platform.python_version()}", *versions, f"commit {commit}"]
    return {name: ", ".join(words) for name, words in parts.items()}


def write(out, lines, report):
    """Writes a table below what it is of as OUT.md, and the report as OUT.json."""
    texts = [*report["of"].values(), markdown(lines)]
    write_text(out.with_suffix(".md"), "\n\n".join(texts) + "\n")
    write_json(out.with_suffix(".json"), report)


def write_table(bench, args, report):
    """Measures the rows, prints each as it is there, and keeps what is there in the files."""
    chosen = [row for row in rows_of(args.models) if re.search(args.only or "", row.name)]
    if not chosen:
        raise UserError(f"--only {args.only} finds no row; without it all are measured")
    lines, report["rows"] = [list(COLUMNS)], []
    say(markdown(lines))
    for row in chosen:
        with redirect_stdout(io.StringIO()):  # a run says where it is, mattes how many
            rounds = row.rounds // 3 if args.quick else row.rounds
            report["rows"].append(measured(row, bench, rounds))
        lines.append(cells(report["rows"][-1]))
        say(markdown(lines).splitlines()[-1])
        write(args.out, lines, report)


def write_growth(bench, args, report):
    """Measures the growth and writes its table and plot."""
    import growth

    report["rows"] = rows = growth.grown(bench, args.growth or growth.SIZES)
    lines = [list(growth.HEAD), *growth.lines(rows)]
    out = args.out.with_name(args.out.name + "_growth")
    say(markdown(lines))
    write(out, lines, report)
    growth.plot(rows, out.with_suffix(".svg"))


def parse_args(argv=None):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for title, options in FLAGS.items():
        group = parser.add_argument_group(title)
        for option in options:
            option.add_to(group)
    args = parser.parse_args(argv)
    if args.quick:
        args.scale, args.models = args.scale / 10, args.models[:1]
    return args


def main(argv=None):
    args = parse_args(argv)
    from bench import Bench

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, folder)
        report = {"of": describe(bench), "options": vars(args)}
        say("\n".join(report["of"].values()))
        (write_table if args.growth is None else write_growth)(bench, args, report)


if __name__ == "__main__":
    run_command(main)
