"""The page of the report, as plain blocks: what a section says, and how it becomes HTML."""

from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from common.files import write_csv, write_text
from reporting import survey

TEMPLATE = Path(__file__).with_name("report.html.j2")


def number(value, digits=3):
    """Text of a table cell: counts with thousands, shares with `digits`, nothing for NaN."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return str(value)


def signed(value, digits=3):
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def span(low, high, sign=False):
    """`[0.58, 0.66]`, with signs for a difference."""
    show = signed if sign else number
    return f"[{show(low)}, {show(high)}]"


def chance(p):
    """`p = .14`, `p < .001`."""
    return "p < .001" if p < 0.001 else "p = " + f"{p:.2g}".lstrip("0") if p < 1 else "p = 1"


def section(key, title, intro, blocks):
    return {"key": key, "title": title, "intro": intro, "blocks": [b for b in blocks if b]}


def text(words):
    return {"kind": "text", "words": words}


def notes(items):
    return {"kind": "notes", "items": list(items)} if items else None


def figure(svg, caption=""):
    return {"kind": "figure", "svg": svg, "caption": caption}


def table(frame, caption, csv="", limit=None, empty=""):
    """A table block of the first `limit` rows; `csv` names the file that has them all.

    Without rows it is the text `empty`, or nothing.
    """
    if not len(frame):
        return text(empty) if empty else None
    shown = frame if limit is None else frame.head(limit)
    rows = [[number(cell) for cell in row] for row in shown.itertuples(index=False, name=None)]
    if len(shown) < len(frame):
        caption = f"{caption} The first {len(shown)} of {len(frame):,}."
    return {
        "kind": "table",
        "head": [str(column).replace("_", " ") for column in frame.columns],
        "rows": rows,
        "numeric": [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes],
        "caption": caption,
        "csv": csv,
    }


def keep(tables, name, frame, caption, **options):
    """`table`, of a frame that is also written as `name`.csv."""
    tables[name] = frame
    return table(frame, caption, f"{name}.csv", **options)


def heat(names, counts, caption):
    """A confusion table, rows true; the colour is the share of the row."""
    counts = np.asarray(counts)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    rows = [
        [(int(n), round(float(s), 2)) for n, s in zip(*row, strict=True)]
        for row in zip(counts, share, strict=True)
    ]
    return {"kind": "heat", "names": list(names), "rows": rows, "caption": caption}


def cards(items, beside=False):
    """Photos with words below them, or beside them. items: what `card` makes."""
    return {"kind": "cards", "items": items, "beside": beside} if items else None


def card(images, title, lines=(), flag=""):
    """images: [(data URI, alternative text)]; flag: "good", "bad" or nothing."""
    return {"images": images, "title": title, "lines": list(lines), "flag": flag}


def photo_cards(data, table):
    """Cards of rows of runs.mistakes."""
    return cards(
        [
            card(
                [(survey.photo_uri(data.root / row.image), row.image)],
                f"{row.prediction}, p {row.p_prediction:.2f}",
                [
                    f"label: {row.label}, p {row.p_label:.2f}",
                    f"{row.age} years",
                    f"{row.person} {PurePosixPath(row.image).name}",
                ],
            )
            for row in table.itertuples()
        ],
        beside=True,
    )


def details(title, blocks, opened=False):
    return {
        "kind": "details",
        "title": title,
        "blocks": [block for block in blocks if block],
        "open": opened,
    }


def grid(head, columns, rows, caption):
    """A table of pictures. head: [(words, columns it spans)]; rows: [(title, [data URI])]."""
    return {"kind": "grid", "head": head, "columns": columns, "rows": rows, "caption": caption}


def heading(words, note=""):
    return {"kind": "heading", "words": words, "note": note}


def write(out, title, headline, sections, tables, foot):
    """Writes the page and, in `<stem>_tables` beside it, every table as csv. Returns its bytes."""
    from jinja2 import Environment, StrictUndefined

    out = Path(out)
    folder = out.with_name(f"{out.stem}_tables")
    for name, frame in tables.items():
        write_csv(folder / f"{name}.csv", frame)
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title, headline=headline, sections=sections, foot=foot, folder=folder.name
    )
    write_text(out, page)
    return len(page.encode())
