"""The benchmark: that its rows run, on tiny photos, and that it measures what it says."""

import json
from argparse import Namespace

import pytest
import torch

from common.errors import UserError
from common.files import HOME
from dataset import read_train


@pytest.fixture(scope="module")
def scripts():
    """The modules of the benchmark, which import each other as files of one folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HOME / "scripts")
        import benchmark
        import customary
        import measures

        return Namespace(benchmark=benchmark, customary=customary, measures=measures)


def test_rows_become_a_table_a_json_file_and_a_plot(scripts, drawn, tmp_path, capsys):
    words = ["--rounds", "2", "--photos", "70", "140", "--model", "test_resnet", "--resize", "32"]
    words += ["24", "--data_dir", drawn / "train", "--out", tmp_path / "table", "--batch_size", "8"]
    names = ["epoch", "epoch_first", "epoch_customary", "store", "comparison"]
    scripts.benchmark.main([*map(str, words), "--only", *names])
    report = json.loads((tmp_path / "table.json").read_text())
    sizes = [(row["row"], row["photos"]) for row in report["rows"]]
    assert sizes == [(name, photos) for name in names for photos in (70, 140)]
    for row in report["rows"]:
        assert len(row["rounds"]) == 2 and all(min(pair) > 0 for pair in row["rounds"])
        ratios = [(a / b[0] if b else a) for a, *b in row["rounds"]]
        assert row["ratio"] == sum(ratios) / 2 and row["highest"] == max(ratios)
    printed, table = capsys.readouterr().out, (tmp_path / "table.md").read_text()
    for name in [*names, f"torch {torch.__version__}", "32x24", "cores"]:
        assert name in printed and name in table
    assert "<svg" in (tmp_path / "table.svg").read_text()


def test_a_row_that_is_none_is_refused(scripts):
    with pytest.raises(UserError, match="not one of epoch, "):
        scripts.benchmark.main(["--only", "none_such"])


def test_the_order_alternates_and_a_row_reaches_its_bar_or_not(scripts, monkeypatch):
    order = []

    def thing(name, value):
        return lambda: order.append(name) or value

    for unit, bar, reached in ("s", 1.5, True), ("s", 1.4, False), ("a/s", 1.5, True):
        row = (lambda *_: (thing("a", 3), thing("b", 2)), 0, unit, "b", bar)
        monkeypatch.setitem(scripts.benchmark.ROWS, "x", row)
        result = scripts.benchmark.measured("x", None, 5, 3)
        assert result["ratio"] == 1.5 and result["reached"] == reached
    assert order[:6] == list("abbaab")


def test_the_memory_of_a_command_is_that_of_its_own_process(scripts, tmp_path):
    ballast = torch.zeros(2**27)  # half a GB of this process
    (tmp_path / "block.py").write_text("block = bytearray(150 * 2**20)")
    resident = scripts.measures.memory(tmp_path / "block.py")
    assert 150 < resident < ballast.nbytes / 2**20
    with pytest.raises(UserError, match=r"^the reason$"):
        scripts.measures.command("-c", "raise SystemExit('told\\nthe reason')")


def test_the_customary_loop_has_the_labels_of_the_table_and_learns(scripts, drawn):
    table = read_train(drawn / "train").frame
    labels = dict(zip(table.image, table.label, strict=True))
    torch.manual_seed(0)
    of = drawn / "train", "test_resnet", "cpu", 32, 24, 8
    model, optimizer, *loaders = scripts.customary.prepare(*of)
    items = [item for loader in loaders for item in loader.dataset.items]
    assert {"/".join(path.parts[-2:]): label for path, label in items} == labels
    assert len(items) == len(labels)
    parts = model, optimizer, loaders[0], "cpu"
    losses = [scripts.customary.train_epoch(*parts) for _ in range(2)]
    assert losses[1] < losses[0]
    assert 0 <= scripts.customary.validate(model, loaders[1], "cpu") < 1
