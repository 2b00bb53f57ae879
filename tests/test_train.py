"""The way from photos to a run folder, on the drawn competition with a tiny model."""

import json
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import macro_f1_sklearn
from safetensors.torch import load_file

import dataset
import train
from common.errors import UserError
from dataset import read_train
from labels import ATTRIBUTES, HEADS, PROBS, decode
from training import task
from training.loop import Diverged


@pytest.fixture(scope="module")
def go(drawn, tmp_path_factory):
    """A function that trains a tiny model on the drawn competition and returns its run folder."""
    home = tmp_path_factory.mktemp("train")

    def run(*flags, on_epoch=None):
        base = ["--data_dir", str(drawn / "train"), "--model_dir", str(home / "runs")]
        base += ["--cache_dir", str(home / "cache"), "--model", "test_efficientnet"]
        base += ["--weights", "none", "--resize", "32", "24", "--epochs", "2"]
        return train.main(base + [flag for words in flags for flag in words.split()], on_epoch)

    return run


def oof_of(folder):
    return pd.read_csv(folder / "oof.csv", dtype={"image": str, "person": str})


def folds_of(folder):
    """{person: fold} as a series."""
    return pd.read_csv(folder / "folds.csv", dtype={"person": str}).set_index("person").fold


def read(path):
    return json.loads(path.read_text())


def test_joint_run_describes_itself(go, drawn):
    folder = go("--name", "joint")
    table = read_train(drawn / "train").frame
    oof, result = oof_of(folder), read(folder / "metrics.json")
    held_out = table[table.person.map(folds_of(folder)) == 0].sort_values("image")
    assert 0 < held_out.person.nunique() < table.person.nunique()
    assert oof.image.tolist() == held_out.image.tolist()
    assert oof.label.tolist() == held_out.label.tolist()
    np.testing.assert_allclose(oof[PROBS].sum(axis=1), 1, atol=1e-5)
    answers = oof[PROBS].to_numpy().argmax(1)
    assert result["macro_f1"] == pytest.approx(macro_f1_sklearn(oof.label, answers))
    for name, codes in decode(oof.label.to_numpy()).items():
        theirs = macro_f1_sklearn(codes, decode(answers)[name], HEADS[name])
        assert result["attributes"][name]["macro_f1"] == pytest.approx(theirs)
    config = read(folder / "config.json")
    assert config["options"]["lr"] == {"": 1e-3}
    assert config["data"]["images"] == len(table)
    assert list(folder.glob("fold0/events.out.tfevents.*"))
    log = pd.read_csv(folder / "fold0/label/log.csv")
    assert log.epoch.tolist() == [1, 2]
    best = read(folder / "fold0/label/best.json")
    assert best["score"] == pytest.approx(log.macro_f1.max())
    assert best["epoch"] == log.epoch[log.macro_f1.argmax()]


def test_next_run_gets_the_next_number(go):
    assert [go("--name", "twice", "--epochs", "1").name for _ in range(2)] == ["twice", "twice2"]


def test_split_trains_each_attribute_by_its_own_options(go):
    folder = go(
        "--split_heads --name split --epochs 1 age=3 --resize 32 24 gender=40,30 --criterion "
        "cross_entropy age=focal"
    )
    logs = {name: pd.read_csv(folder / f"fold0/{name}/log.csv") for name in ATTRIBUTES}
    assert {name: len(log) for name, log in logs.items()} == {"mask": 1, "gender": 1, "age": 3}
    assert read(folder / "fold0/gender/best.json")["size"] == [40, 30]
    together = pd.read_csv(folder / "fold0/log.csv")
    assert together.epoch.tolist() == [1, 2, 3]
    oof = oof_of(folder)
    best_age = int(logs["age"].macro_f1.argmax())
    answers = oof[PROBS].to_numpy().argmax(1)
    # mask and gender had one epoch, so the epoch of the best age has the answers of the OOF
    expected = macro_f1_sklearn(oof.label, answers)
    assert together.macro_f1[best_age] == pytest.approx(expected)
    ages = macro_f1_sklearn(oof.label % 3, answers % 3, 3)
    assert logs["age"].macro_f1.max() == pytest.approx(ages)


def test_shared_backbone_has_three_heads(go):
    folder = go(
        "--shared_backbone --name shared --epochs 1 --criterion cross_entropy age=f1*0.4+focal*0.6"
    )
    state = load_file(folder / "fold0/shared/best.safetensors")
    assert state["head.weight"].shape[0] == 3 + 2 + 3
    np.testing.assert_allclose(oof_of(folder)[PROBS].sum(axis=1), 1, atol=1e-5)


def test_same_seed_same_run_and_other_seed_other_run(go):
    words = ("--epochs 1 --mixup --weighted_sampler --drop_rate 0.3 --deterministic",)
    runs = [go("--name", "seed", "--seed", seed, *words) for seed in ("1", "1", "2")]
    assert torch.are_deterministic_algorithms_enabled()  # which matters on a GPU
    torch.use_deterministic_algorithms(False)
    bytes_of = [(run / "fold0/label/best.safetensors").read_bytes() for run in runs]
    assert bytes_of[0] == bytes_of[1] != bytes_of[2]
    assert (runs[0] / "oof.csv").read_bytes() == (runs[1] / "oof.csv").read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ("--cutmix_half", "--ema", "0.9", "--clip_grad"),
        ("--cutmix", "--accumulate", "3", "--scheduler", "step", "--lr_decay_step", "1"),
        ("--augmentation", "strong", "--scheduler", "plateau", "--class_weights", "0.5",
         "--label_smoothing", "0.1", "--channels_last", "off"),
        ("--amp", "bf16", "--early_stop", "1", "--val_ratio", "0.4"),
    ],
)  # fmt: skip
def test_options_train(go, words):
    folder = go("--name", "options", *words)
    log = pd.read_csv(folder / "fold0/label/log.csv")
    assert np.isfinite(log.train_loss).all() and log.train_loss.min() > 0


def test_learns_to_tell_a_mask_on_people_it_never_saw(go):
    """Mask worn or not is easy: far above the .28 of always guessing the most frequent."""
    folder = go("--split_heads --name learns --epochs 1 mask=24 --lr 1e-2 --batch_size 8")
    log = pd.read_csv(folder / "fold0/mask/log.csv")
    assert log.macro_f1.max() > 0.45
    assert log.train_loss.iloc[-1] < 0.7 * log.train_loss.iloc[0]


def test_accumulated_batches_step_as_one(go):
    """Two batches of 35 step as one of 70, for a model without batch statistics."""
    words = (
        "--model test_vit --resize 32 32 --epochs 1 --optimizer sgd --augmentation none --lr "
        "0.1 --warmup_epochs 0 --scheduler none --name sum"
    )
    halves = go(words, "--batch_size", "35", "--accumulate", "2")
    whole = go(words, "--batch_size", "70")
    ours, theirs = (load_file(run / "fold0/label/best.safetensors") for run in (halves, whole))
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], atol=2e-4, rtol=1e-3)


def test_k_fold_predicts_everybody_once(go, drawn):
    folder = go("--k_fold", "3", "--epochs", "1", "--name", "folds")
    oof, table = oof_of(folder), read_train(drawn / "train").frame.sort_values("image")
    assert oof.image.tolist() == table.image.tolist()
    assert (oof.fold == oof.person.map(folds_of(folder))).all()
    result = read(folder / "metrics.json")
    pooled = macro_f1_sklearn(oof.label, oof[PROBS].to_numpy().argmax(1))
    assert result["macro_f1"] == pytest.approx(pooled)
    assert [part["fold"] for part in result["folds"]] == [0, 1, 2]
    words = "--k_fold 3 --epochs 1 --name apart"
    for number, done in ((2, {2}), (0, {0, 2}), (1, {0, 1, 2})):
        apart = go(words, "--fold", str(number))
        assert set(oof_of(apart).fold) == done
    assert (apart / "oof.csv").read_bytes() == (folder / "oof.csv").read_bytes()
    with pytest.raises(UserError, match="--lr"):
        go(words, "--fold", "0", "--lr", "1e-4")
    with pytest.raises(UserError, match="--fold 3"):
        go(words, "--fold", "3")


def test_training_on_everybody_has_a_model_and_no_score(go):
    folder = go("--val_ratio", "0", "--epochs", "1", "--name", "all")
    assert (folder / "fold0/label/best.safetensors").exists()
    assert not (folder / "oof.csv").exists()
    assert "macro_f1" not in read(folder / "metrics.json")


def test_views_train_together_and_keep_people_apart(go, drawn, tiny, monkeypatch):
    trained = []

    class Spy(dataset.Epoch):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            trained.extend(zip(self.photos.tolist(), self.views.tolist(), strict=True))

    monkeypatch.setattr(task, "Epoch", Spy)
    folder = go(
        "--bg none+grabcut --bg_fill random --crop person --epochs 1 --name views --matte_dir",
        str(tiny.home / "mattes"),
    )
    oof, folds = oof_of(folder), folds_of(folder)
    assert oof.image.is_unique
    assert set(oof.person) == set(folds.index[folds == 0])
    frame = read_train(drawn / "train").frame
    train_people = frame.person.map(folds) == -1
    both = [(row, view) for row in frame.index[train_people] for view in (0, 1)]
    assert sorted(trained) == both
    info = read(folder / "fold0/label/best.json")
    assert (info["bg"], info["crop"]) == ("none+grabcut", "person")
    assert "grabcut" in info["mattes"]


def test_not_finite_loss_names_the_batch(go):
    with pytest.raises(UserError, match=r"batch \d+ \(.*(mask|normal).*lower --lr"):
        go("--lr 1e30 --optimizer sgd --warmup_epochs 0 --name nan --epochs 4 --batch_size 8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data_dir", "nowhere"), "nowhere is not a folder"),
        (("--fold", "0", "--k_fold", "99"), "--k_fold 99"),
        (("--device", "cuda:77"), "--device cuda:77"),
        (("--device", "abacus"), "--device abacus"),
        (("--resume", "nowhere"), r"nowhere is not a run .* no config\.json"),
    ],
)
def test_wrong_input_is_one_clear_line(go, words, message):
    with pytest.raises(UserError, match=message):
        train.main(words) if "--resume" in words else go(*words)


def test_a_stopped_run_says_how_to_go_on(go, tmp_path, capsys):
    home = tmp_path / "mine's"

    def stop(fold, epoch, score):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match="130"):
        go("--model_dir", str(home), on_epoch=stop)
    command = capsys.readouterr().err.splitlines()[-1].partition("go on with: python train.py ")[2]
    assert train.main(shlex.split(command)) == home / "exp"
    with pytest.raises(SystemExit, match="130"):
        go(f"--k_fold 3 --fold 1 0 --name folds --model_dir {home / 'runs'}", on_epoch=stop)
    assert capsys.readouterr().err.strip().endswith("runs/folds' --fold 1 0")


def test_resume_takes_no_other_options(go):
    folder = go("--epochs", "1", "--name", "done")
    with pytest.raises(UserError, match="--lr"):
        train.main(["--resume", str(folder), "--lr", "1"])
    before = (folder / "oof.csv").read_bytes()
    assert train.main(["--resume", str(folder)]) == folder
    assert (folder / "oof.csv").read_bytes() == before


def test_unreadable_photo_stops_or_is_left_out(go, drawn, tmp_path, capsys):
    data = tmp_path / "train"
    shutil.copytree(drawn / "train", data)
    victim = read_train(data).frame.image[3]
    (data / "images" / victim).write_bytes(b"no photo")
    with pytest.raises(UserError, match=victim.split("/")[1].split(".")[0]):
        go("--data_dir", str(data), "--name", "broken")
    folder = go(f"--data_dir {data} --on_error skip --k_fold 2 --epochs 1 --name broken")
    assert f"left out, unreadable: {victim}" in capsys.readouterr().out
    assert victim not in set(oof_of(folder).image)


def test_a_run_of_an_older_version_is_told_apart(go):
    folder = go("--name", "older", "--epochs", "1")
    config = read(folder / "config.json")
    del config["options"]["ema"]
    config["git"] = "abc123"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="in --ema: go on with that, which was abc123"):
        train.main(["--resume", str(folder)])
    assert train.parse_args(["--from_run", str(folder), "--epochs", "3"]).ema == {"": 0}
    config["options"]["gone"] = 1  # a flag of that version, whose value nothing would act on
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="in --gone"):
        train.parse_args(["--from_run", str(folder)])


@pytest.mark.parametrize("words", ["--lr 1e6", "--lr 1e30 --val_ratio 0 --optimizer sgd"])
def test_a_run_that_diverges_says_so_and_is_not_finished(go, words):
    with pytest.raises(Diverged, match=r"fold 0 label epoch .* lower --lr") as caught:
        go(words, "--name diverged --epochs 3 --warmup_epochs 0 --batch_size 8")
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK", b"no state", "list", "other"])
def test_a_state_that_is_none_of_ours_is_named(go, content, tmp_path):
    folder = go("--name state --epochs 1 --model_dir", str(tmp_path))
    (folder / "fold0/metrics.json").unlink()
    path = folder / "fold0/label/last.pt"
    if content == "list":
        torch.save([1, 2], path)
    elif content == "other":
        torch.save({"model": {"weight": torch.zeros(3)}}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"last\.pt is damaged or of another model") as caught:
        train.main(["--resume", str(folder)])
    assert "weights_only" not in str(caught.value)


def test_batches_that_cannot_be_normalized_are_refused_before_a_folder(go, tmp_path):
    with pytest.raises(UserError, match=r"--batch_size 1 .* normalizes over the batch"):
        go("--batch_size 1 --name one --model_dir", str(tmp_path))
    assert not list(tmp_path.iterdir())
    go("--batch_size 1 --epochs 1 --model test_vit --resize 32 32 --model_dir", str(tmp_path))


def test_folds_that_were_edited_are_refused(go, tmp_path):
    folder = go("--name folds --epochs 1 --model_dir", str(tmp_path))
    (folder / "fold0/metrics.json").unlink()
    whole = (folder / "folds.csv").read_text()
    for text in (whole[: len(whole) // 2].rpartition("\n")[0], "person,fold\n", "x\n\0", ""):
        (folder / "folds.csv").write_text(text)
        with pytest.raises(UserError, match=r"folds\.csv"):
            train.main(["--resume", str(folder)])


def test_folds_that_are_lost_while_training_are_named(go, tmp_path):
    home, lost = tmp_path / "runs", []
    words = ("--name lost --epochs 1 --k_fold 2 --model_dir", str(home))

    def lose(fold, epoch, score):
        if fold == 0:
            lost.append((home / "lost/folds.csv").rename(tmp_path / "folds.csv"))

    with pytest.raises(UserError, match=r"lost/folds\.csv does not exist"):
        go(*words, on_epoch=lose)
    lost[0].rename(home / "lost/folds.csv")
    folder = train.main(["--resume", str(home / "lost")])
    assert len(oof_of(folder)) == 168


@pytest.mark.parametrize("flag", ["--model_dir", "--cache_dir"])
def test_a_file_in_the_place_of_a_folder_is_named(go, tmp_path, flag):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(UserError, match=f"{flag} {path}.*give another"):
            go(flag, str(path), "--name misplaced")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_goes_on_where_it_was_moved_to(go, tmp_path):
    folder = go("--name moved --epochs 1 --model_dir", str(tmp_path / "old"))
    before = (folder / "oof.csv").read_bytes()
    (folder / "fold0/metrics.json").unlink()
    moved = folder.rename(tmp_path / "new")
    shutil.rmtree(folder.parent)
    folder.parent.write_text("a file now")
    train.main(["--resume", str(moved)])
    assert (moved / "oof.csv").read_bytes() == before
