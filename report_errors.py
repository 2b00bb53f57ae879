"""The sections of the report on what goes wrong: mistakes, and labels that look wrong."""

import pandas as pd

import eda
import figures
import page
import runs
import suspects

CARDS = 18  # mistakes and suspects shown


def build_errors(tables, rows, data, groups, best):
    """Section "Errors": of every run as csv, of the best on the page."""
    tables["mistakes"] = pd.concat(
        [runs.mistakes(rows, group.probs).assign(run=group.name) for group in groups],
        ignore_index=True,
    )
    by_age = runs.error_by_age(rows, best.probs)
    tables["error_by_age"] = pd.concat(
        [runs.error_by_age(rows, group.probs).assign(run=group.name) for group in groups],
        ignore_index=True,
    )
    wrong = tables["mistakes"][tables["mistakes"].run == best.name]
    kinds = wrong.wrong.value_counts().rename_axis("what is wrong").reset_index(name="images")
    kinds["share of mistakes"] = (kinds.images / max(len(wrong), 1)).map("{:.0%}".format)
    intro = (
        f"{best.name}, the run with the best score, errs on {len(wrong):,} of {len(rows):,} photos."
    )
    said = "What the model said and its probability, then the label. One photo a person."
    blocks = [
        page.keep(tables, "mistake_kinds", kinds, "What is wrong in the wrong ones."),
        page.figure(
            figures.errors_by_age(by_age, best.name),
            "Points: one year of age; lines: the mean over five years.",
        ),
        page.heading("The most confident mistakes", said),
        page.photo_cards(data, wrong.drop_duplicates("person").head(CARDS)),
    ]
    return page.section("errors", "Errors", intro, blocks)


# ---- suspect labels


def build_suspects(tables, rows, data, groups, wrong_people):
    """Section "Suspect labels". wrong_people: names, where the truth is known, or None."""
    found = suspects.rank(rows, [run.probs for group in groups for run in group.runs])
    tables["suspects"] = found[suspects.COLUMNS]
    intro = (
        "People whose seven photos, predicted by models that never saw them, agree on something "
        "else than the label. Look before you believe: a hard photo and a wrong label look alike. "
        "suspects.csv has them in the format of label_fixes.csv: review it, then train with "
        "--label_fixes suspects.csv."
    )
    blocks = []
    if wrong_people:
        result = suspects.against_truth(found, wrong_people)
        blocks.append(
            page.text(
                f"The truth of these data is known: {result['people']} people have a wrong gender "
                f"or age, and {result['found']} of them are among the first {result['people']} "
                f"of the ranking (precision and recall {result['precision']:.2f})."
            )
        )
        tables["suspects_truth"] = pd.DataFrame([result])
    items = []
    for row in found.head(CARDS).rename(columns={"from": "given"}).itertuples():
        photos = rows[rows.person == row.person].sort_values("mask", ascending=False).image
        if row.field.startswith("mask"):  # the photo itself first
            photos = [row.image, *photos[photos != row.image]]
        title = f"{row.field}: {row.given} \N{RIGHTWARDS ARROW} {row.to}?"
        lines = [row.note, f"{row.years} years", f"confidence {row.confidence:.2f}"]
        images = [(eda.photo_uri(data.root / image), image) for image in photos[:3]]
        items.append(page.card(images, title, lines))
    caption = "The surest first."
    nobody = "No other label is likelier than the one given."
    blocks += [
        page.cards(items),
        page.keep(tables, "suspects", found[suspects.COLUMNS], caption, limit=30, empty=nobody),
    ]
    return page.section("suspects", "Suspect labels", intro, blocks)
