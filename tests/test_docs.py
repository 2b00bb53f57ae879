"""The documents: their commands and flags are real, their links lead somewhere, and the two
READMEs say the same."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest

import demo
import inference
import options
import preprocess
import report
import tune
from common.files import HOME

README, KOREAN, FLAGS = (HOME / name for name in ("README.md", "README.ko.md", "docs/flags.md"))
WRITTEN = (README, KOREAN, HOME / "docs/guide.md", HOME / "docs/findings.md")
PARSERS = {f"{module.__name__}.py": module.parse_args for module in (demo, inference, preprocess)}
PARSERS |= {"report.py": report.parse_args, "train.py": options.parse_args}
STARTERS = {"python", ".venv/bin/python", "bash", "torchrun", "tensorboard", "uv", "source"}
NOT_OURS = {"--nproc_per_node", "--max-restarts", "--logdir", "--seed", "--python"}
NOT_OURS |= {"--dataset"}  # of the competition's baseline


def read(path):
    return path.read_text(encoding="utf-8")


def commands(path):
    """The commands in the blocks and code spans of a document, each a list of its words."""
    found = re.findall(r"```bash\n(.*?)```|`([^`\n]+)`", read(path), re.S)
    lines = [line for block, span in found for line in (block or span).splitlines()]
    split = [shlex.split(line, comments=True) for line in lines if line.count('"') % 2 == 0]
    return [words for words in split if STARTERS & set(words) and words[0] not in PARSERS]


def test_flags_md_is_what_the_tables_say():
    command = [sys.executable, "scripts/flags.py"]
    made = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=True).stdout
    assert made == read(FLAGS), "run: python scripts/flags.py > docs/flags.md"


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_the_commands_of_a_document_are_taken_by_their_parsers(path):
    for words in commands(path):
        words = [word for word in words if word != "..."]
        script = next((k for k, word in enumerate(words) if word.endswith((".py", ".sh"))), None)
        if script is None:  # a tool of others
            continue
        assert (HOME / words[script]).is_file(), words
        if words[script] == "tune.py":
            _, fixed = tune.parse_args(words[script + 1 :])
            options.parse_args(fixed)
        elif words[script] in PARSERS:
            PARSERS[words[script]](words[script + 1 :])


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_a_document_names_flags_that_there_are(path):
    known = set(re.findall(r"`(--\w+)`", read(FLAGS)))
    for script in (HOME / "scripts").glob("*.py"):
        named = re.findall(r"(?:Option|add_argument)\(\s*\"(?:--)?(\w+)", read(script))
        known |= {f"--{name}" for name in named}
    assert set(re.findall(r"(?<![\w-])--\w[\w-]*", read(path))) <= known | NOT_OURS


@pytest.mark.parametrize("path", (*WRITTEN, FLAGS), ids=lambda path: path.name)
def test_the_links_of_a_document_lead_to_files(path):
    targets = re.findall(r"\]\(([^)#]+)", read(path))
    local = [target for target in targets if "://" not in target]
    assert not [target for target in local if not (path.parent / target).exists()]
    spans = re.findall(r"`([\w/]+(?:/|\.(?:py|sh|csv|json)))`", read(path))
    folders = ("data/", "runs/", "output/", "mattes/", "cache/", "weights/")
    ours = [span for span in spans if "/" in span and not span.startswith(folders)]
    assert not [span for span in ours if not (HOME / span).exists()]


def test_the_readmes_say_the_same():
    assert commands(README) == commands(KOREAN)
    for pattern in (r"^(#+) ", r"^(\|---.*\|)$", r"^```(\w*)", r"([+-]?\.\d{3})\b"):
        english, korean = (re.findall(pattern, read(path), re.M) for path in (README, KOREAN))
        assert english and english == korean, pattern
    for pattern in (r"`(tests/[^`]+)`", r"(?<![\w-])--\w+", r"\b\d+,\d{3}"):
        english, korean = (set(re.findall(pattern, read(path))) for path in (README, KOREAN))
        assert english and english == korean, pattern
    english, korean = (set(re.findall(r"\]\(([^)]+)\)", read(p))) for p in (README, KOREAN))
    assert english - {KOREAN.name} == korean - {README.name}
    assert KOREAN.name in english and README.name in korean


def test_the_readmes_stay_short_and_their_picture_small():
    assert max(len(read(path).splitlines()) for path in (README, KOREAN)) <= 180
    assert (HOME / "docs/overview.jpg").stat().st_size <= 200_000


def test_git_ignores_the_pages_tables_and_pictures_of_photos(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(HOME / ".gitignore", tmp_path)
    scripts = "".join(map(read, (HOME / "scripts").glob("*.sh")))
    pages = {"report.html", *re.findall(r"PAGE:-([\w.]+)", scripts)}
    assert len(pages) > 2
    made = [*pages, *(f"{page.removesuffix('.html')}_tables/runs.csv" for page in pages)]
    made += ["mattes/preview.png", "runs/exp/dry_run.png", "output/output.csv", "tune.db"]
    words = ["git", "-C", tmp_path, "check-ignore", *made]
    assert subprocess.run(words, capture_output=True, text=True).stdout.split() == made
