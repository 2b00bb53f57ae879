"""Prints docs/flags.md, every flag of every command: python scripts/flags.py > docs/flags.md"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from options import OPTIONS, text_of

print(
    "# Flags\n\nMade by `python scripts/flags.py > docs/flags.md` from the tables of the commands."
)
print("A flag marked * takes overrides by attribute: `--lr 1e-3 age=3e-4`,")
print("`--resize 128 96 age=224,168`. *Alone* is the value of a flag that is given without one.")
for command in ("train", "inference", "report", "preprocess", "tune", "demo"):
    table = OPTIONS if command == "train" else importlib.import_module(command).FLAGS
    print(f"\n## {command}.py")
    for title, rows in table.items():
        print(f"\n### {title}\n\n| flag | default | alone | meaning |\n|---|---|---|---|")
        for row in rows:
            alone = "on" if row.parse is None else "" if row.bare is None else text_of(row.bare)
            cells = f"`--{row.name}`{' *' * row.by_attribute}", row.shown(), alone, row.help
            print("|", " | ".join(str(cell).replace("|", "\\|") for cell in cells), "|")
