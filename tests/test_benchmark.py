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
        import bench
        import benchmark
        import customary
        import growth

        return Namespace(bench=bench, benchmark=benchmark, customary=customary, growth=growth)


def test_rows_become_a_table_and_a_json_file(scripts, drawn, tmp_path, capsys):
    words = ["--quick", "--scale", "0.1", "--models", "test_resnet", "--resize", "32", "24"]
    words += ["--data_dir", drawn / "train", "--out", tmp_path / "table", "--batch_size", "8"]
    names = ["training epoch, test_resnet", "first epoch, no store", "epoch", "store"]
    names += ["comparison of two runs, 2,000 draws"]
    only = f"^({'|'.join(names)})$"
    scripts.benchmark.main([*map(str, words), "--only", only])
    report = json.loads((tmp_path / "table.json").read_text())
    assert [row["what"] for row in report["rows"]] == names
    for row in report["rows"]:
        assert len(row["pairs"]) == 2 and all(min(pair) > 0 for pair in row["pairs"])
        assert row["figures"] == [(a / b[0] if b else a) for a, *b in row["pairs"]]
    printed, table = capsys.readouterr().out, (tmp_path / "table.md").read_text()
    for name in [*names, f"torch {torch.__version__.split('+')[0]}", "32x24", "cores"]:
        assert name in printed and name in table


def test_no_row_and_a_wrong_pattern_are_refused(scripts, drawn, tmp_path):
    words = ["--data_dir", str(drawn / "train"), "--out", str(tmp_path / "x"), "--only"]
    with pytest.raises(UserError, match="finds no row"):
        scripts.benchmark.main([*words, "none_such"])
    with pytest.raises(UserError, match="not a regular expression"):
        scripts.benchmark.main([*words, "("])


def test_the_order_of_two_things_alternates(scripts):
    order = []

    def thing(name, value):
        return lambda: order.append(name) or value

    row = scripts.benchmark.Row(
        "x", lambda *_: (thing("a", 3), thing("b", 2)), "b", "≥ 1.5", "s", 0
    )
    result = scripts.benchmark.measured(row, Namespace(scaled=lambda people: people), 3)
    assert order == list("abbaab")
    assert result["figure"] == 1.5 and result["reached"]


def test_a_row_reaches_its_bar_or_not(scripts):
    row = scripts.benchmark.Row("x", None, "y", "≤ 2", "s", 0)
    assert row.reached(2) and not row.reached(2.1)
    assert not scripts.benchmark.Row("x", None, "y", "≥ 2", "s", 0).reached(1.9)
    assert scripts.benchmark.Row("x", None, "y", "", "s", 0).reached(1) is None
    assert scripts.benchmark.Row("x", None, "y", "≤ 2", "s", 0, difference=True).figure(5, 3) == 2


def test_a_command_is_timed_and_its_memory_is_that_of_its_own_process(scripts):
    ballast = torch.zeros(2**27)  # half a GB of this process
    code = "import time; block = bytearray(150 * 2**20); time.sleep(.3)"
    seconds, resident, own = scripts.bench.command("-c", code)
    assert seconds > 0.3 and 150 < own <= resident < ballast.nbytes / 2**20
    with pytest.raises(UserError, match="ended with 3: no luck"):
        scripts.bench.command("-c", "print('no luck'); raise SystemExit(3)")


def test_the_customary_loop_has_the_labels_of_the_table_and_learns(scripts, drawn):
    table = read_train(drawn / "train").frame
    labels = dict(zip(table.image, table.label, strict=True))
    torch.manual_seed(0)
    loaders = scripts.customary.loaders(drawn / "train", (32, 24), 8, 0)
    items = [item for loader in loaders for item in loader.dataset.items]
    assert {"/".join(path.parts[-2:]): label for path, label in items} == labels
    assert len(items) == len(labels)
    parts = scripts.customary.build("test_resnet", "cpu")
    losses = [scripts.customary.train_epoch(*parts, loaders[0], "cpu") for _ in range(2)]
    assert losses[1] < losses[0]
    assert 0 <= scripts.customary.validate(parts[0], loaders[1], "cpu") < 1


def test_growth_is_a_table_and_a_plot(scripts, tmp_path):
    rows = [(step, n, n / 100, n / 2, n / 4) for step in ("store", "epoch") for n in (70, 140)]
    assert scripts.growth.lines(rows)[1] == ["store", "140", "1.4", "10.00", "70", "35"]
    scripts.growth.plot(rows, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
