"""The arithmetic that auto chooses: the fastest of what was tried, remembered, kept by the run."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import options
import train
from common.errors import UserError
from model import ModelInfo
from training import arithmetic

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """Sets what a step takes, {(amp, compile): seconds}, compiling 100 s; lists what was tried."""
    tried = []

    def set_times(times):
        def time_steps(of, device):
            tried.append((of["amp"], of["compile"], of["batch_size"]))
            return 100.0, times[of["amp"], of["compile"]]

        monkeypatch.setattr(arithmetic, "time_steps", time_steps)
        return tried

    return set_times


def choose(cache, *words, photos=32000, device=CPU):
    tasks = options.tasks_of(options.parse_args(["--epochs", "2", *words]))
    data = SimpleNamespace(train=range(photos), pixels=SimpleNamespace(views=1))
    return arithmetic.choose(tasks, device, cache, dict.fromkeys(tasks, data))


def chosen(*args, **how):
    """What is chosen for the one model of a joint run."""
    task = choose(*args, **how)["label"]
    return task["amp"], task["compile"]


def test_the_fastest_is_chosen_unless_it_is_within_the_noise(clock, tmp_path, capsys):
    clock({("off", False): 0.5, ("bf16", False): 0.3})
    assert chosen(tmp_path / "a") == ("bf16", False)
    assert "label trains in bf16; seconds a step: fp32 0.5, bf16 0.3" in capsys.readouterr().out
    clock({("off", False): 0.5, ("bf16", False): 0.49})
    assert chosen(tmp_path / "b") == ("off", False)


def test_what_is_asked_for_is_not_tried_and_a_short_run_takes_the_usual(clock, tmp_path):
    tried = clock({})
    for amp in ("off", "bf16", "fp16"):
        assert chosen(tmp_path, "--amp", amp, "--compile") == (amp, True)
    assert chosen(tmp_path, photos=70) == ("off", False)
    assert not tried


def test_times_are_remembered_by_batch_size_and_made_again_where_they_are_damaged(clock, tmp_path):
    tried = clock({("off", False): 0.5, ("bf16", False): 0.3})
    both = [("off", False), ("bf16", False)]
    assert chosen(tmp_path) == chosen(tmp_path) == ("bf16", False)
    assert tried == [(*way, 32) for way in both]
    chosen(tmp_path, "--batch_size", "16")
    assert tried[2:] == [(*way, 16) for way in both]
    for path in tmp_path.glob("*.steps"):
        path.write_text("damaged")
    chosen(tmp_path)
    assert tried[4:] == [(*way, 32) for way in both]


def test_compiling_is_chosen_where_the_steps_repay_it(clock, tmp_path):
    tried = clock({("off", False): 0.5, ("bf16", False): 0.9, ("off", True): 0.25})
    assert chosen(tmp_path, "--compile", "auto") == ("off", True)  # 2,000 steps
    assert chosen(tmp_path, "--compile", "auto", photos=8000) == ("off", False)  # 500: 250 s
    assert ("bf16", True, 32) not in tried
    slow = clock({("off", False): 1.3, ("off", True): 1.2})
    assert chosen(tmp_path / "b", "--compile", "auto", "--amp", "off", photos=8000)[1] is False
    assert ("off", True, 32) in slow


def test_on_a_gpu_cuda_graphs_are_tried_too(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(arithmetic.devices, "name_of", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    times = {False: 0.5, True: 0.25, "graphs": 0.2}
    clock({("bf16", how): seconds for how, seconds in times.items()})
    words = ["--amp", "bf16", "--compile", "auto"]
    assert chosen(tmp_path, *words, device=torch.device("cuda")) == ("bf16", "graphs")
    words += ["--accumulate", "2"]  # whose gradients the next replay would write over
    assert chosen(tmp_path, *words, device=torch.device("cuda")) == ("bf16", True)


@pytest.mark.parametrize(("major", "usual"), [(7, "fp16"), (8, "bf16")])
def test_a_gpu_that_only_emulates_bf16_takes_fp16(monkeypatch, major, usual):
    """As a T4, of compute capability 7.5, on which torch can make tensors of bf16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=major))
    assert arithmetic.usual_amp(torch.device("cuda")) == usual


def test_graphs_are_the_mode_of_torch_that_reduces_overhead(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, mode: (network, mode))
    ways = [arithmetic.compiled("network", how) for how in (False, True, "graphs")]
    assert ways == ["network", ("network", None), ("network", "reduce-overhead")]


def test_equal_models_of_a_run_are_tried_once_and_another_by_itself(clock, tmp_path):
    tried = clock({("off", False): 0.5, ("bf16", False): 0.3})
    words = ["--split_heads", "--batch_size", "32", "age=8", "--amp", "auto", "gender=off"]
    tasks = choose(tmp_path, *words)
    assert {name: of["amp"] for name, of in tasks.items()} == {
        "mask": "bf16", "gender": "off", "age": "bf16"
    }  # fmt: skip
    assert [count for *_, count in tried] == [32, 32, 8, 8]


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_step_is_timed(amp):
    words = ["--model", "test_resnet", "--resize", "32", "24", "--batch_size", "4", "--amp", amp]
    of = options.tasks_of(options.parse_args(words))["label"]
    assert all(0 < seconds < 60 for seconds in arithmetic.time_steps(of, CPU))


@pytest.mark.parametrize(("how", "steps"), [(False, 1), (True, 1 + arithmetic.TRIES)])
def test_slow_steps_are_tried_once_unless_the_first_compiles(monkeypatch, how, steps):
    tried = []
    monkeypatch.setattr(
        arithmetic, "compiled", lambda network, _: lambda x: tried.append(1) or network(x)
    )
    monkeypatch.setattr(arithmetic, "ENOUGH", 0)
    words = ["--model", "test_resnet", "--resize", "32", "24", "--amp", "off"]
    of = options.tasks_of(options.parse_args(words))["label"] | {"compile": how}
    assert all(0 < seconds < 60 for seconds in arithmetic.time_steps(of, CPU))
    assert len(tried) == steps


def test_what_fails_takes_for_ever_and_is_tried_again_another_time(monkeypatch, tmp_path):
    def broken(*images):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    words = ["--model", "test_resnet", "--resize", "32", "24", "--compile"]
    of = options.tasks_of(options.parse_args([*words, "--amp", "off"]))["label"]
    assert min(arithmetic.remembered_time(of, CPU, tmp_path)) > 1e6
    assert not list(tmp_path.glob("*.steps"))


def test_a_run_says_and_keeps_what_was_chosen(clock, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(arithmetic, "LEAST_STEPS", 1)
    words = ["--data_dir", drawn / "train", "--model_dir", tmp_path, "--model", "test_resnet"]
    words += ["--weights", "none", "--epochs", "1", "--resize", "32", "24", "--k_fold", "3"]
    go = partial(train.main, on_epoch=None)
    tried = clock({("off", False): 0.5, ("bf16", False): 0.3})
    words = [*map(str, words), "--cache_dir", str(tmp_path / "cache"), "--fold"]
    folder = go([*words, "0"])
    clock({("off", False): 0.3, ("bf16", False): 0.5})
    words[-2] = str(tmp_path / "other")  # where nothing is remembered
    assert go([*words, "1"]) == go(["--resume", str(folder)]) == folder
    config = json.loads((folder / "config.json").read_text())
    assert config["tasks"]["label"]["amp"] == "bf16" and len(tried) == 2
    infos = [ModelInfo.read(folder / f"fold{k}/label/best.safetensors") for k in range(3)]
    assert [info.amp for info in infos] == ["bf16"] * 3
    config["tasks"]["label"]["amp"] = "fp7"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"tasks\.label\.amp is 'fp7'"):
        go([*words, "1"])


def test_a_run_compiled_to_cuda_graphs_takes_its_own_config(tiny, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, mode: network)
    folder = tiny.train("--compile", "graphs", "--name", "graphs")
    config = json.loads((folder / "config.json").read_text())
    assert config["tasks"]["label"]["compile"] == "graphs"


def test_a_model_in_the_usual_arithmetic_predicts_in_what_is_usual_where_it_is_used(tiny):
    assert json.loads((tiny.joint / "config.json").read_text())["tasks"]["label"]["amp"] == "off"
    assert ModelInfo.read(tiny.joint / "fold0/label/best.safetensors").amp == "auto"
