"""What the sections of the page are made of: texts of numbers, pictures, blocks of HTML."""

import base64
from numbers import Integral, Real
from pathlib import Path
from urllib.parse import quote

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


def number(value, sign=""):
    """Text of a table cell: counts with thousands, shares with three digits, a dash for NaN."""
    if pd.isna(value):
        return "–"
    if isinstance(value, Integral):
        return f"{value:,}"
    if isinstance(value, Real):
        return f"{value:{sign}.3f}".replace("-", "\N{MINUS SIGN}")
    return value if isinstance(value, str) else str(value)  # HTML stays HTML


def estimate(value, low, high, sign=""):
    """`0.620 [0.580, 0.660]`, of a difference with the sign "+"."""
    return f"{number(value, sign)} [{number(low, sign)}, {number(high, sign)}]"


def chance(p):
    """`p = .14`, `p < .001`."""
    return "p < .001" if p < 0.001 else "p = " + f"{p:.2g}".lstrip("0") if p < 1 else "p = 1"


def estimates(frame, sign=""):
    """The estimates in the rows (value, low, high) of a frame."""
    return [estimate(*row, sign) for row in frame.itertuples(index=False)]


def data_uri(image):
    """A WebP data URI of an RGB uint8 image."""
    image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    coded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 72])[1]
    return "data:image/webp;base64," + base64.b64encode(coded.tobytes()).decode()


def photo(data, image):
    """(data URI, alternative text) of a photo of a dataset.Table; grey if it cannot be read."""
    try:
        small = cv2.resize(read_photo(data.root / image), SMALL, interpolation=cv2.INTER_AREA)
    except UserError:
        small = np.full((*SMALL[::-1], 3), 128, np.uint8)
    return data_uri(small), image


def table(frame, caption, csv="", limit=None, kind=""):
    """A table of the first `limit` rows; csv: address of the whole table.

    A cell may be HTML. kind: "heat" or "grid", or nothing.
    """
    shown = frame.head(limit or len(frame))
    if len(shown) < len(frame):
        caption = f"{caption} The first {len(shown)} of {len(frame):,}."
    numeric = map(pd.api.types.is_numeric_dtype, frame.dtypes)
    # The columns of the other kinds are names of classes and runs, told as they are.
    names = frame.columns if kind else frame.columns.str.replace("_", " ")
    head = zip(names, numeric, strict=True)
    rows = [[number(cell) for cell in row] for row in shown.itertuples(index=False)]
    return html.table(list(head), rows, caption, csv, kind)


def keep(evidence, name, frame, caption, shown=None, **options):
    """`table` of a frame, or of `shown` in its place, that is also written as `name`.csv."""
    evidence.tables[name] = frame
    shown = frame if shown is None else shown
    return table(shown, caption, quote(f"{evidence.folder}/{name}.csv"), **options)


def heat(names, counts, caption):
    """A confusion table, rows true; the colour is the share of the row."""
    rows = [[html.shade(count, count / max(sum(row), 1)) for count in row] for row in counts]
    frame = pd.DataFrame(rows, columns=names, dtype=object)
    frame.insert(0, "", names)
    return table(frame, caption, kind="heat big" if len(names) > 6 else "heat")
