"""The figures of the report: matplotlib, as SVG pictures. Each returns (data URI, title)."""

import base64
import io
import warnings

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiment.comparison import MARGIN
from labels import ATTRIBUTES

# Of Okabe and Ito (2008): colours that the colour-blind can tell apart.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
BOUNDS = (30, 60)  # years at which an age group begins
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,  # a run's name may have any character, $ too
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.5,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.transparent": True,  # the page is behind it
}


def _canvas(width, height):
    """(figure, axes) without pyplot, so that nothing global is kept or needs a display."""
    matplotlib.rcParams.update(STYLE)
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _mark_bounds(axes):
    for bound in BOUNDS:
        axes.axvline(bound - 0.5, color="black", lw=1.2, ls="--")
        place = {"xycoords": ("data", "axes fraction"), "va": "top"}
        axes.annotate(f"from {bound}", (bound - 0.3, 1), **place)


def _picture(figure):
    """(data URI, title) of a figure, the same bytes for the same figure."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The texts of the SVG are drawn by the browser, which has other fonts.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(file, format="svg", metadata={"Date": None})
    coded = base64.b64encode(file.getvalue()).decode()
    return f"data:image/svg+xml;base64,{coded}", figure.axes[0].get_title("left")


def age_histogram(people):
    """People by year of age and gender. people: frame (age, gender), one row a person."""
    figure, axes = _canvas(8, 3)
    ages = [people.age[people.gender == code] for code in (0, 1)]
    years = np.arange(people.age.min(), people.age.max() + 2) - 0.5
    looks = {"color": [BLUE, ORANGE], "label": ATTRIBUTES["gender"], "rwidth": 0.86}
    axes.hist(ages, years, stacked=True, **looks)
    axes.margins(y=0.18)
    _mark_bounds(axes)
    axes.set(title="People by age", xlabel="age (years)", ylabel="people")
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=2)
    return _picture(figure)


def forest(rows, baseline):
    """Differences with intervals. rows: frame (run, difference, low, high, verdict), top first."""
    figure, axes = _canvas(8, 0.42 * len(rows) + 1.3)
    ways = [rows.verdict.str.startswith(way) for way in ("better", "worse")]
    colours = np.select(ways, [GREEN, RED], BLUE)
    axes.set_yticks(range(len(rows)), rows.run)
    axes.grid(axis="y", visible=False)
    axes.set(title="Did it help?", xlabel=f"difference of macro F1 from {baseline}, 95 % interval")
    axes.axvspan(-MARGIN, MARGIN, color="#e8e8e8")  # no difference worth an option
    axes.hlines(range(len(rows)), rows.low, rows.high, colours, lw=2.5)
    axes.scatter(rows.difference, range(len(rows)), 49, colours, "s", zorder=3)
    axes.axvline(0, color="black", lw=1)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    return _picture(figure)


def errors_by_age(table):
    """Share of wrong images by year of age, and over 5 years. table: of error_by_age, one run."""
    figure, axes = _canvas(8, 3.4)
    ages, images = table.age.to_numpy(), table.images.to_numpy()
    weights = (np.abs(ages[:, None] - ages) <= 2) * images
    for name, colour in {"age": RED, "gender": BLUE, "mask": GREEN}.items():
        wrong = table[f"wrong_{name}"].to_numpy()
        axes.plot(ages, wrong, "o", ms=3.5, alpha=0.45, color=colour)
        axes.plot(ages, weights @ wrong / weights.sum(1), lw=2, color=colour, label=name)
    _mark_bounds(axes)
    axes.set(title="Where mistakes cluster", ylim=(0, 1))
    axes.set(xlabel="age (years)", ylabel="share of photos wrong")
    figure.legend(loc="outside lower center", ncols=3)
    return _picture(figure)
