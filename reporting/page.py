"""What the sections of the page are made of: texts of numbers, pictures, blocks of HTML."""

import base64
from numbers import Integral, Real
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common.errors import UserError
from photos.reading import read_photo

SMALL = (96, 128)  # width, height of the photos on the page
TEMPLATES = FileSystemLoader(Path(__file__).parent)
# The macros of report.html.j2: html.heading("Files") is a piece of HTML, "" is none.
html = Environment(loader=TEMPLATES, autoescape=True, undefined=StrictUndefined)
html = html.get_template("report.html.j2").module


# ---- texts


def number(value, sign=""):
    """Text of a table cell: counts with thousands, shares with three digits, a dash for NaN."""
    if pd.isna(value):
        return "–"
    if isinstance(value, Integral):
        return f"{value:,}"
    if isinstance(value, Real):
        return f"{value:{sign}.3f}".replace("-", "\N{MINUS SIGN}")
    return str(value)


def interval(low, high, sign=""):
    return f"[{number(low, sign)}, {number(high, sign)}]"


def estimate(value, low, high):
    """A score: `0.620 [0.580, 0.660]`."""
    return f"{number(value)} {interval(low, high)}"


def change(value, low, high):
    """A difference: `+0.040 [−0.010, +0.090]`; nothing for NaN."""
    return "" if pd.isna(value) else f"{number(value, '+')} {interval(low, high, '+')}"


def chance(p):
    """`p = .14`, `p < .001`."""
    return "p < .001" if p < 0.001 else "p = " + f"{p:.2g}".lstrip("0") if p < 1 else "p = 1"


def texts(form, frame):
    """A Series of form(*cells) of the rows of a frame."""
    return pd.Series([form(*row) for row in frame.itertuples(index=False)], frame.index, object)


# ---- pictures


def data_uri(image, quality=72):
    """A WebP data URI of an RGB or grey uint8 image."""
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    coded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
    return "data:image/webp;base64," + base64.b64encode(coded.tobytes()).decode()


def small_photo(path):
    """(128, 96, 3) RGB uint8; a grey card if the photo cannot be read."""
    try:
        return cv2.resize(read_photo(path), SMALL, interpolation=cv2.INTER_AREA)
    except UserError:
        return np.full((*SMALL[::-1], 3), 128, np.uint8)


def photo(data, image):
    """(data URI, alternative text) of a photo of a dataset.Table, as `card` takes it."""
    return data_uri(small_photo(data.root / image)), image


# ---- blocks


def section(key, title, intro, blocks):
    return {"key": key, "title": title, "intro": intro, "blocks": blocks}


def table(frame, caption, csv="", limit=None, empty=""):
    """A table of the first `limit` rows; `csv` is the address of the file that has them all.

    Without rows it is the text `empty`.
    """
    if not len(frame):
        return html.text(empty)
    shown = frame.head(limit or len(frame))
    if len(shown) < len(frame):
        caption = f"{caption} The first {len(shown)} of {len(frame):,}."
    numeric = map(pd.api.types.is_numeric_dtype, frame.dtypes)
    head = zip([name.replace("_", " ") for name in frame.columns], numeric, strict=True)
    rows = [[number(cell) for cell in row] for row in shown.itertuples(index=False)]
    return html.table(list(head), rows, caption, csv)


def keep(evidence, name, frame, caption, shown=None, **options):
    """`table` of a frame, or of `shown` in its place, that is also written as `name`.csv."""
    evidence.tables[name] = frame
    shown = frame if shown is None else shown
    return table(shown, caption, f"{evidence.folder}/{name}.csv", **options)


def heat(names, counts, caption):
    """A confusion table, rows true; the colour is the share of the row."""
    counts = np.asarray(counts)
    shares = (counts / np.maximum(counts.sum(1, keepdims=True), 1)).round(2)
    return html.heat(names, np.stack([counts.astype(object), shares], -1).tolist(), caption)


def mistake_cards(data, mistakes, most):
    """Cards of the first mistakes (of runs.mistakes), one a person, `most` in all."""
    cards = []
    for row in mistakes.drop_duplicates("person").head(most).itertuples():
        label = f"label: {row.label}, p {row.p_label:.2f}"
        lines = [label, f"{row.age} years", f"{row.person} {PurePosixPath(row.image).name}"]
        title = f"{row.prediction}, p {row.p_prediction:.2f}"
        cards.append(html.card([photo(data, row.image)], title, lines))
    return html.cards(cards)
