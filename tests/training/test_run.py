"""What a run says while it trains, what it starts from, what it leaves, what it refuses before."""

import json
import re
import shutil

import pandas as pd
import pytest
from safetensors.torch import load_file

import train
from common.errors import UserError
from dataset import read_train


def told(tiny, capsys, *words):
    """(run folder, lines of the start, lines of the epochs) of a run."""
    capsys.readouterr()
    folder = tiny.train(*words)
    lines = capsys.readouterr().out.splitlines()
    lines = lines[[line.startswith("run ") for line in lines].index(True) :]
    epochs = [line for line in lines if re.match(r"fold \d epoch", line)]
    return folder, lines[: lines.index(epochs[0])], epochs


def test_the_start_says_what_trains_on_whom_and_where(tiny, drawn, capsys):
    words = ["--shared_backbone", "--name", "start", "--bg", "none+grabcut"]
    folder, start, epochs = told(tiny, capsys, *words)
    frame, folds = read_train(drawn / "train").frame, pd.read_csv(folder / "folds.csv")
    held_out = frame.person.isin(folds.person[folds.fold == 0])
    state = load_file(folder / "fold0/shared/best.safetensors")
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    count = sum(value.numel() for key, value in state.items() if not key.endswith(buffers))
    assert len(start) <= 8 and start[0].startswith(f"run {folder}, on cpu")
    assert f"test_efficientnet ({count / 1e6:.1f} million parameters, float32)" in start[1]
    assert (
        f"view none+grabcut at 32 x 24, 1 epoch of {-(-2 * (~held_out).sum() // 8)} steps"
        in start[1]
    )
    people = [frame.person[rows].nunique() for rows in (~held_out, held_out)]
    who = "train on {} people ({} photos), validate on {} people ({} photos)"
    assert who.format(people[0], 7 * people[0], people[1], 7 * people[1]) in start[3]
    assert re.fullmatch(r"an epoch of shared takes about \d+ s, the run \d+ s", start[4])
    scores = json.loads((folder / "metrics.json").read_text())
    each = " ".join(f"{n} {v['macro_f1']:.3f}" for n, v in scores["attributes"].items())
    log = pd.read_csv(folder / "fold0/shared/log.csv").iloc[0]
    assert epochs == [
        f"fold 0 epoch 1/1 | shared: loss {log.train_loss:.3f}/{log.val_loss:.3f}, "
        f"lr {log.lr:.2g}, F1 {each}* | 18 classes F1 {scores['macro_f1']:.3f}* | 0 s left"
    ]


def test_an_epoch_marks_the_best_and_the_tasks_that_are_done(tiny, capsys):
    words = ["--split_heads", "--epochs", "1", "age=4", "--name", "marks"]
    folder, _, epochs = told(tiny, capsys, *words)
    ages = pd.read_csv(folder / "fold0/age/log.csv").macro_f1
    joint = pd.read_csv(folder / "fold0/log.csv").macro_f1
    assert len(epochs) == 4 and "mask: loss" in epochs[0] and epochs[-1].endswith("| 0 s left")
    for number, line in enumerate(epochs):
        age = re.search(r"age: loss .*?F1 (\d\.\d+)(\*?)", line)
        whole = re.search(r"18 classes F1 (\d\.\d+)(\*?)", line)
        for found, scores in (age, ages), (whole, joint):
            assert found[1] == f"{scores[number]:.3f}"
            assert bool(found[2]) == (scores[number] > scores[:number].max() or number == 0)
        assert ("mask: done (kept epoch 1) | gender: done (kept epoch 1)" in line) == (number > 0)


def test_a_loss_that_explodes_is_told_after_the_first_epoch(tiny, capsys):
    words = ["--lr", "100", "--val_ratio", "0", "--name", "explodes"]
    tiny.train(*words)
    line = next(line for line in capsys.readouterr().out.splitlines() if "warning" in line)
    assert re.search(
        r"fold 0 label epoch 1/1: the loss rose from \d\.\d+ to [\d,]+; lower --lr", line
    )
    tiny.train("--val_ratio", "0", "--name", "calm")
    assert "warning" not in capsys.readouterr().out


def test_a_run_starts_from_the_weights_of_another_fold_by_fold(tiny):
    still = ["--lr", "1e-12", "--weight_decay", "0", "--crop", "center"]
    words = ["--k_fold", "2", "--init_from", str(tiny.joint), "--name", "more"]
    folder = tiny.train(*words, *still)
    larger = tiny.train(*words, *still, "--resize", "48", "40", "--fold", "1", "--name", "larger")
    for fold, runs in (0, [folder]), (1, [folder, larger]):
        source = load_file(tiny.joint / f"fold{fold}/label/best.safetensors")
        for run in runs:
            state = load_file(run / f"fold{fold}/label/best.safetensors")
            weights = [key for key in state if key.endswith(("weight", "bias"))]
            assert weights and all((state[k] - source[k]).abs().max() < 1e-6 for k in weights)
    tiny.train("--val_ratio", "0", "--init_from", str(folder), *still)  # nobody is held out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--k_fold", "3"], "--init_from .* holds out other people"),
        (["--k_fold", "2", "--seed", "1"], "--init_from .* holds out other people"),
        (
            ["--k_fold", "2", "--split_heads"],
            "--init_from .* has another layout: use the same models",
        ),
        (
            ["--k_fold", "2", "--model", "test_resnet"],
            r"fold0/label/best.* does not fit: .*--model",
        ),
        (["--k_fold", "2", "--age_mse"], r"fold0/label/best.* does not fit: .*--age_mse"),
    ],
)
def test_weights_that_know_the_answers_or_do_not_fit_are_refused(tiny, words, message):
    runs = sorted(tiny.joint.parent.iterdir())
    with pytest.raises(UserError, match=message):
        tiny.train(*words, "--init_from", str(tiny.joint), "--name", "refused")
    assert sorted(tiny.joint.parent.iterdir()) == runs


def test_a_finished_fold_keeps_no_state_and_says_that_it_is_finished(tiny, tmp_path, capsys):
    assert list(tiny.joint.glob("fold1/label/best.safetensors"))
    assert not list(tiny.joint.glob("**/last.pt"))
    state = tiny.joint / "fold0/label/last.pt"  # as if killed before it was removed
    state.write_bytes(b"state")
    train.main(["--resume", str(tiny.joint)])
    assert "finished already: fold 0, 1" in capsys.readouterr().out and not state.exists()


def test_batches_are_counted_of_the_photos_that_train(tiny, drawn, tmp_path):
    people = read_train(drawn / "train").frame.person.unique()
    fixes = [
        f"{name},mask,{state},drop,1,"
        for name in people
        for state in ("wear", "incorrect", "normal")
    ]
    (tmp_path / "fixes.csv").write_text(
        "\n".join(["id,field,from,to,confidence,note", *fixes[:-1]])
    )
    runs = sorted(tiny.joint.parent.iterdir())
    words = ["--val_ratio", "0", "--label_fixes", str(tmp_path / "fixes.csv"), "--name", "few"]
    with pytest.raises(
        UserError, match=r"--batch_size 8 with 1 training photos: test_efficientnet"
    ):
        tiny.train(*words)
    assert sorted(tiny.joint.parent.iterdir()) == runs


def test_a_run_goes_on_with_its_own_labels_and_fixes_alone(tiny, drawn, tmp_path):
    data, fixes = tmp_path / "data", tmp_path / "fixes.csv"
    data.mkdir()
    (data / "images").symlink_to(drawn / "train/images")
    (data / "train.csv").write_text((drawn / "train/train.csv").read_text())
    fixes.write_text("id,field,from,to,confidence\nx,gender,male,female,1\n")
    words = ["--data_dir", str(data), "--label_fixes", str(fixes), "--model_dir", str(tmp_path)]
    folder = tiny.train(*words)
    for path, old, new, message in (
        (fixes, "x,", "y,", "is not what .* was trained with"),
        (data / "train.csv", ",male,", ",female,", "was trained on other photos or labels"),
    ):
        whole = path.read_text()
        path.write_text(whole.replace(old, new, 1))
        with pytest.raises(UserError, match=message):
            train.main(["--resume", str(folder)])
        path.write_text(whole)
    train.main(["--resume", str(folder)])


def test_weights_of_a_fold_in_training_are_no_start(tiny, tmp_path):
    half = shutil.copytree(tiny.joint, tmp_path / "half")
    (half / "fold1/metrics.json").unlink()
    with pytest.raises(UserError, match="its fold 1 is not finished"):
        tiny.train("--k_fold", "2", "--init_from", str(half), "--name", "half")
