"""The figures of the report: matplotlib, as SVG that takes its ink from the page.

Text and axes are drawn in a marker colour that becomes `currentColor`, so that one figure reads on
a light page, on a dark one and on paper.
"""

import io
import re
import zlib

import numpy as np

from labels import ATTRIBUTES, CLASS_NAMES

# Okabe and Ito (2008): colours that the colour-blind can tell apart.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
)
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY)
MARKERS = "osD^vP"
INK = "#010203"
LONG = re.compile(r"(\d+\.\d{2})\d+")
STYLE = {
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
} | dict.fromkeys(
    ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"),
    INK,
)


def _canvas(width, height, rows=1, columns=1, **options):
    """(figure, axes) without pyplot, so that nothing global is kept or needs a display."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update(STYLE)
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


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
    years = np.arange(people.age.min(), people.age.max() + 1)
    bottom = np.zeros(len(years))
    for code, colour in ((0, BLUE), (1, ORANGE)):
        ages = people.age[people.gender == code]
        counts = np.array([(ages == year).sum() for year in years])
        name = ATTRIBUTES["gender"][code]
        axes.bar(years, counts, 0.86, bottom=bottom, color=colour, label=name)
        bottom += counts
    top = axes.get_ylim()[1]
    for bound in (30, 60):
        axes.axvline(bound - 0.5, color=INK, lw=1.2, ls="--")
        axes.text(bound - 0.3, top * 1.02, f"from {bound}", va="bottom", fontsize=9)
    axes.set_ylim(0, top * 1.1)
    axes.set(title="People by age", xlabel="age (years)", ylabel="people")
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.2))
    return _svg(figure, "People by age and gender, with the bounds of the age groups")


def class_counts(counts):
    """Images of each of the 18 classes, rarest visible. counts: (18,)."""
    figure, axes = _canvas(8, 4.4)
    colours = [(BLUE, ORANGE, GREEN)[k // 6] for k in range(len(counts))]
    axes.barh(range(len(counts)), counts, color=colours)
    for k, count in enumerate(counts):
        axes.text(count, k, f" {count:,}", va="center", fontsize=9)
    axes.set_yticks(range(len(counts)), [f"{k:2d}  {name}" for k, name in enumerate(CLASS_NAMES)])
    axes.invert_yaxis()
    axes.margins(x=0.09, y=0.01)
    axes.grid(axis="y", visible=False)
    axes.set(title="Images by class", xlabel="images")
    return _svg(figure, "Images by class")


def learning_curves(logs):
    """Loss and macro F1 by epoch, a row a task, a line a fold. logs: {task: frame of log.csv}."""
    figure, axes = _canvas(8, 2.1 * len(logs) + 0.3, len(logs), 2, squeeze=False)
    for (task, log), (left, right) in zip(logs.items(), axes, strict=True):
        folds = sorted(log.fold.unique())
        for fold in folds:
            part, alpha = log[log.fold == fold], 1 if len(folds) == 1 else 0.65
            for column, colour, name in (
                ("train_loss", BLUE, "training"),
                ("val_loss", ORANGE, "validation"),
            ):
                if column in part:
                    label = name if fold == folds[0] else None
                    left.plot(part.epoch, part[column], color=colour, alpha=alpha, label=label)
            if "macro_f1" in part:
                right.plot(part.epoch, part.macro_f1, color=GREEN, alpha=alpha)
        left.set(title=f"{task}: loss", ylabel="loss")
        right.set(title=f"{task}: macro F1 (validation)", ylabel="macro F1")
        if left.lines:
            left.legend()
        else:
            left.set_visible(False)
        for side in (left, right):
            side.xaxis.get_major_locator().set_params(integer=True)
    for side in axes[-1]:
        side.set_xlabel("epoch")
    return _svg(figure, "Learning curves of " + ", ".join(logs))


def reliability(images, confidence, accuracy, ece):
    """Reliability diagram: accuracy by top probability, bins of metrics.reliability."""
    figure, (axes, below) = _canvas(
        4, 3.8, 2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]}
    )
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
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set(title=title, xlabel=f"difference of macro F1 from {baseline}, 95 % interval")
    return _svg(figure, title)


def per_class(groups):
    """F1 of the 18 classes side by side. groups: {name: (18,) F1}."""
    figure, axes = _canvas(8, 5 + 0.25 * ((len(groups) + 2) // 3))
    offsets = np.linspace(-0.28, 0.28, len(groups)) if len(groups) > 1 else [0]
    for k, ((name, f1), offset) in enumerate(zip(groups.items(), offsets, strict=True)):
        look = {"color": CYCLE[k % 6], "marker": MARKERS[k // 6 % 6]}
        axes.plot(f1, np.arange(18) + offset, ls="", ms=6, label=name, **look)
    for k in range(1, 18):
        axes.axhline(k - 0.5, color=INK, lw=0.5, alpha=0.9 if k % 6 == 0 else 0.15)
    axes.set_yticks(range(18), CLASS_NAMES)
    axes.set(title="F1 of each class", xlabel="F1", xlim=(-0.02, 1.02), ylim=(17.6, -0.6))
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=min(3, len(groups)))
    return _svg(figure, "F1 of each class, runs side by side")


def errors_by_age(table, name):
    """Share of wrong images by year of age, and over 5 years. table: runs.error_by_age."""
    figure, (axes, below) = _canvas(8, 4, 2, 1, sharex=True, gridspec_kw={"height_ratios": [4, 1]})
    looks = (
        ("age_group", RED, "o", "age group"),
        ("gender", BLUE, "s", "gender"),
        ("mask", GREEN, "^", "mask"),
    )
    for column, colour, marker, label in looks:
        axes.plot(table.age, table[column], marker, ms=3.5, alpha=0.45, color=colour)
        near = np.abs(table.age.to_numpy()[:, None] - table.age.to_numpy()) <= 2
        weights = near * table.images.to_numpy()
        smooth = weights @ table[column].to_numpy() / weights.sum(1)
        axes.plot(table.age, smooth, lw=2, color=colour, label=label)
    for bound in (30, 60):
        axes.axvline(bound - 0.5, color=INK, lw=1.2, ls="--")
    axes.set(title=f"Where mistakes cluster ({name})", ylabel="share of images wrong", ylim=(0, 1))
    figure.legend(loc="outside lower center", ncols=3)
    below.bar(table.age, table.people, 0.86, color=SKY)
    below.set(xlabel="age (years)", ylabel="people")
    return _svg(figure, "Share of wrong images by year of age and attribute")


def energy(table):
    """Share of Grad-CAM energy on the person. table: frame (run, attribute, energy, area)."""
    names, attributes = list(dict.fromkeys(table.run)), list(dict.fromkeys(table.attribute))
    figure, axes = _canvas(8, 0.34 * len(names) * len(attributes) + 1.6)
    place, ticks, labels = 0.0, [], []
    for name in names:
        for k, attribute in enumerate(attributes):
            row = table[(table.run == name) & (table.attribute == attribute)]
            if len(row):
                axes.barh(place, row.energy.iloc[0], 0.8, color=CYCLE[k])
                axes.plot([row.area.iloc[0]] * 2, [place - 0.4, place + 0.4], color=INK, lw=2)
                ticks.append(place)
                labels.append(f"{name}: {attribute}")
                place += 1
        place += 0.5
    axes.set_yticks(ticks, labels)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(
        title="Does the model look at the person?",
        xlabel="share of Grad-CAM energy on the person (line: the person's share of the image)",
        xlim=(0, 1),
    )
    return _svg(figure, "Share of Grad-CAM energy on the person, by run and attribute")
