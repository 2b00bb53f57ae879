"""--dry_run: what a run would be and cost, and all that it would refuse, at once."""

import re

import cv2
import pytest

import train
from common.errors import UserError
from training.loop import Diverged


@pytest.fixture
def dry(drawn, tmp_path, monkeypatch):
    """A function that tries a command line in an empty folder, where it returns what is left."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def go(*words, switch="--dry_run"):
        base = [*switch.split(), "--data_dir", drawn / "train", "--cache_dir", tmp_path / "cache"]
        base += ["--model", "test_efficientnet", "--weights", "none", "--resize", "32", "24"]
        base += ["--matte_dir", tmp_path / "mattes"]
        assert (train.main([*map(str, base), *words]) is None) == ("off" not in switch)
        return sorted(path.name for path in (tmp_path / "here").iterdir())

    return go


def test_it_tells_the_cost_draws_the_batches_and_makes_no_run(dry, capsys):
    words = ["--split_heads", "--k_fold", "2", "--batch_size", "12", "--bg", "none", "mask=grabcut"]
    assert dry(*words, "--lr", "1e-2", "age=1e-12", "--mixup", "0", "gender=0.2") == ["dry_run.png"]
    said = capsys.readouterr().out
    losses = re.findall(
        r"(\w+): the loss of one batch goes from (\S+) to (\S+) in 30 steps(.*)", said
    )
    assert [name for name, *_ in losses] == ["mask", "gender", "age"]
    for name, first, last, warned in losses:
        assert (float(last) >= 0.9 * float(first)) == ("does NOT fall" in warned) == (name == "age")
    assert re.search(r"the run: about \d+ s for 2 folds, \d\.\d GB of memory, \d+ MB of disk", said)
    assert cv2.imread("dry_run.png").shape == (3 * 2 * (164 + 16), 8 * 120, 3)


def test_it_says_all_problems_at_once(dry, tmp_path, capsys):
    words = "--lr fast --mixup --cutmix --split_heads --optimizer adamw age=sdg --data_dir nowhere"
    words += " --model test_resnet mask=resnet1 --device abacus"
    with pytest.raises(UserError, match=r"^6 problems to solve first$"):
        dry(*words.split())
    said = capsys.readouterr().out.splitlines()
    assert [line[:3] for line in said] == [f"{number}. " for number in range(1, 7)]
    for part in (
        "--lr: 'fast' is not a number", "--mixup and --cutmix exclude each other",
        "nowhere is not a folder", "--model resnet1: timm has no such model",
        "--optimizer sdg: timm has no such optimizer", "--device abacus: torch sees no such device",
    ):  # fmt: skip
        assert sum(part in line for line in said) == 1
    assert not list(tmp_path.glob("here/*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--batch_size 1", "1. --batch_size 1 .* normalizes over the batch"),
        ("--init_from JOINT --k_fold 3", "1. --init_from .* holds out other people"),
    ],
)
def test_it_refuses_what_a_run_refuses(dry, tiny, capsys, words, message):
    with pytest.raises(UserError, match="1 problem to solve first"):
        dry(*words.replace("JOINT", str(tiny.joint)).split())
    assert re.search(message, capsys.readouterr().out)


@pytest.mark.parametrize("source", ["resume", "from_run", "config"])
def test_data_that_a_missing_run_or_file_would_name_are_no_problem(tmp_path, capsys, source):
    words = ["--dry_run", f"--{source}", str(tmp_path / "typo"), "--cache_dir", str(tmp_path)]
    with pytest.raises(UserError, match="1 problem to solve first"):
        train.main(words)
    assert re.search(r"^1\. .*typo.*(no config.json|does not exist)$", capsys.readouterr().out)


@pytest.mark.parametrize("switch", ["--dry_run=on", "--dry_run off", "--dry_run --dry_run=off"])
def test_it_may_be_switched_on_and_off(dry, capsys, switch):
    left = dry("--epochs", "1", "--batch_size", "999", switch=switch)
    assert ", 1 epoch of 1 step\n" in capsys.readouterr().out
    assert left == (["runs"] if "off" in switch else ["dry_run.png"])


def test_a_loss_that_is_not_finite_is_refused(dry):
    with pytest.raises(Diverged, match=r"label: the loss of one batch goes .* to nan; lower --lr"):
        dry("--lr", "1e9", "--optimizer", "sgd")
