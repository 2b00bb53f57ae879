"""The figures of the report: matplotlib, as SVG that takes its ink from the page.

Text and axes are drawn in a marker colour that becomes `currentColor`, so that one figure reads on
a light page, on a dark one and on paper.
"""

import io
import re
import zlib

import numpy as np
import pandas as pd

from labels import ATTRIBUTES, CLASS_NAMES

# Okabe and Ito (2008): colours that the colour-blind can tell apart.
CYCLE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
BLUE, ORANGE, GREEN, PURPLE, RED, SKY = CYCLE
INK = "#010203"
INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
BOUNDS = (30, 60)  # years at which an age group begins
LONG = re.compile(r"(\d+\.\d{2})\d+")
STYLE = dict.fromkeys((*INKED, "grid.color"), INK) | {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.18,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.transparent": True,
}


def _canvas(width, height, rows=1, columns=1, **options):
    """(figure, axes) without pyplot, so that nothing global is kept or needs a display."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update(STYLE)
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def _name_rows(axes, names, places=None):
    """Names at the left of horizontal bars or points, the first on top."""
    axes.set_yticks(range(len(names)) if places is None else places, names)
    axes.grid(axis="y", visible=False)
    axes.invert_yaxis()


def _mark_bounds(axes):
    for bound in BOUNDS:
        axes.axvline(bound - 0.5, color=INK, lw=1.2, ls="--")


def _svg(figure, label):
    """The SVG element of a figure, its numbers cut to two decimals."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'="[^"]*"', lambda found: LONG.sub(r"\1", found[0]), text)
    text = re.sub(r"font: ([^;\"]*?)(\d+px) [^;\"]*", r"font: \1\2 sans-serif", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)  # it would style the whole page
    own = f"f{zlib.crc32(text.encode()):x}-"  # ids of one figure are none of another's
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{own}", text)
    text = re.sub(r"\s*\n\s*", "\n", text).replace(INK, "currentColor")
    label = label.replace('"', "'").replace("<", "under ").replace(">=", "from ")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def age_histogram(people):
    """People by year of age and gender, with the bounds of the age groups.

    people: frame (age, gender), one row a person.
    """
    figure, axes = _canvas(8, 3)
    counts, bottom = pd.crosstab(people.age, people.gender), 0
    for code, colour in enumerate((BLUE, ORANGE)):
        height = counts.get(code, 0 * counts.sum(axis=1))
        name = ATTRIBUTES["gender"][code]
        axes.bar(counts.index, height, 0.86, bottom=bottom, color=colour, label=name)
        bottom += height
    top = axes.get_ylim()[1]
    _mark_bounds(axes)
    for bound in BOUNDS:
        axes.text(bound - 0.3, top * 1.02, f"from {bound}", va="bottom", fontsize=9)
    axes.set_ylim(0, top * 1.1)
    axes.set(title="People by age", xlabel="age (years)", ylabel="people")
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.2))
    return _svg(figure, "People by age and gender, with the bounds of the age groups")


def class_counts(counts):
    """Images of each of the 18 classes, rarest visible. counts: (18,)."""
    figure, axes = _canvas(8, 4.4)
    axes.barh(range(len(counts)), counts, color=np.repeat((BLUE, ORANGE, GREEN), 6))
    for k, count in enumerate(counts):
        axes.text(count, k, f" {count:,}", va="center", fontsize=9)
    _name_rows(axes, [f"{k:2d}  {name}" for k, name in enumerate(CLASS_NAMES)])
    axes.margins(x=0.09, y=0.01)
    axes.set(title="Images by class", xlabel="images")
    return _svg(figure, "Images by class")


def learning_curves(logs):
    """Loss and macro F1 by epoch, a row a task, a line a fold. logs: {task: frame of log.csv}."""
    figure, axes = _canvas(8, 2.1 * len(logs) + 0.3, len(logs), 2, squeeze=False)
    for (task, log), (left, right) in zip(logs.items(), axes, strict=True):
        curves = {"train_loss": (left, BLUE, "training"), "val_loss": (left, ORANGE, "validation")}
        curves["macro_f1"] = right, GREEN, None
        folds = log.groupby("fold")
        for column, (side, colour, label) in curves.items():
            for _, part in folds if column in log else ():
                alpha = 1 if len(folds) == 1 else 0.65
                side.plot(part.epoch, part[column], color=colour, alpha=alpha, label=label)
                label = None
        left.set(title=f"{task}: loss", ylabel="loss")
        right.set(title=f"{task}: macro F1 (validation)", ylabel="macro F1")
        left.set_visible(bool(left.lines))
        if left.lines:
            left.legend()
    for side in axes.flat:
        side.xaxis.get_major_locator().set_params(integer=True)
    for side in axes[-1]:
        side.set_xlabel("epoch")
    return _svg(figure, "Learning curves of " + ", ".join(logs))


def reliability(images, confidence, accuracy, ece):
    """Reliability diagram: accuracy by top probability, bins of metrics.reliability."""
    figure, (axes, below) = _canvas(4, 3.8, 2, 1, sharex=True, height_ratios=[3, 1])
    full = images > 0
    axes.plot([0, 1], [0, 1], color=INK, lw=1, ls="--", label="calibrated")
    axes.plot(confidence[full], accuracy[full], "o-", color=BLUE, label="this run")
    axes.set(title=f"Reliability (ECE {ece:.3f})", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")
    middles = (np.arange(len(images)) + 0.5) / len(images)
    below.bar(middles, images, 0.9 / len(images), color=SKY)
    below.set(xlabel="top probability", ylabel="images")
    return _svg(figure, f"Reliability diagram, expected calibration error {ece:.3f}")


def forest(rows, baseline, title):
    """Differences with intervals. rows: [(name, difference, low, high)], top first."""
    figure, axes = _canvas(8, 0.42 * len(rows) + 1.3)
    for k, (_, difference, low, high) in enumerate(rows):
        colour = GREEN if low > 0 else RED if high < 0 else BLUE
        axes.plot([low, high], [k, k], color=colour, lw=2.5, solid_capstyle="butt")
        axes.plot(difference, k, "s", color=colour, ms=7)
    axes.axvline(0, color=INK, lw=1)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    _name_rows(axes, [row[0] for row in rows])
    axes.set(title=title, xlabel=f"difference of macro F1 from {baseline}, 95 % interval")
    return _svg(figure, title)


def per_class(groups):
    """F1 of the 18 classes side by side. groups: {name: (18,) F1}, two to six."""
    figure, axes = _canvas(8, 5 + 0.25 * ((len(groups) + 2) // 3))
    offsets = np.linspace(-0.28, 0.28, len(groups))
    for k, (name, f1) in enumerate(groups.items()):
        axes.plot(f1, np.arange(18) + offsets[k], "o", ms=6, color=CYCLE[k], label=name)
    for k in range(1, 18):
        axes.axhline(k - 0.5, color=INK, lw=0.5, alpha=0.9 if k % 6 == 0 else 0.15)
    axes.set(title="F1 of each class", xlabel="F1", xlim=(-0.02, 1.02), ylim=(-0.6, 17.6))
    _name_rows(axes, CLASS_NAMES)
    figure.legend(loc="outside lower center", ncols=min(3, len(groups)))
    return _svg(figure, "F1 of each class, runs side by side")


def errors_by_age(table, name):
    """Share of wrong images by year of age, and over 5 years. table: of error_by_age."""
    figure, (axes, below) = _canvas(8, 4, 2, 1, sharex=True, height_ratios=[4, 1])
    ages, images = table.age.to_numpy(), table.images.to_numpy()
    weights = (np.abs(ages[:, None] - ages) <= 2) * images
    looks = {"age_group": (RED, "o"), "gender": (BLUE, "s"), "mask": (GREEN, "^")}
    for column, (colour, marker) in looks.items():
        axes.plot(ages, table[column], marker, ms=3.5, alpha=0.45, color=colour)
        smooth = weights @ table[column].to_numpy() / weights.sum(1)
        axes.plot(ages, smooth, lw=2, color=colour, label=column.replace("_", " "))
    _mark_bounds(axes)
    axes.set(title=f"Where mistakes cluster ({name})", ylabel="share of images wrong", ylim=(0, 1))
    figure.legend(loc="outside lower center", ncols=3)
    below.bar(ages, table.people, 0.86, color=SKY)
    below.set(xlabel="age (years)", ylabel="people")
    return _svg(figure, "Share of wrong images by year of age and attribute")


def energy(table):
    """Share of Grad-CAM energy on the person. table: frame (run, attribute, energy, area)."""
    runs, attributes = pd.factorize(table.run)[0], pd.factorize(table.attribute)[0]
    figure, axes = _canvas(8, 0.34 * len(table) + 1.6)
    places = np.arange(len(table)) + 0.5 * runs
    axes.barh(places, table.energy, 0.8, color=np.take(CYCLE, attributes))
    axes.vlines(table.area, places - 0.4, places + 0.4, color=INK, lw=2)
    _name_rows(axes, table.run + ": " + table.attribute, places)
    axes.set(
        title="Does the model look at the person?",
        xlabel="share of Grad-CAM energy on the person (line: the person's share of the image)",
        xlim=(0, 1),
    )
    return _svg(figure, "Share of Grad-CAM energy on the person, by run and attribute")
