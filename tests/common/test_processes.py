"""Ranks, progress, imports."""

from helpers import outcome

from common import processes


def test_only_rank_0_speaks(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, expected in (("0", "a 1\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        processes.say("a", 1)
        assert capsys.readouterr().out == expected
    assert (processes.rank(), processes.world_size()) == (1, 2)


def test_a_compiler_that_was_left_out_of_the_imports_works_when_it_is_wanted():
    code, _, told = outcome("""
import sys
from common.imports import quick_imports
with quick_imports(compiles=False):
    import timm.optim
import inspect, torch
model, images = torch.nn.Linear(2, 2), torch.ones(1, 2)
optimizer = timm.optim.create_optimizer_v2(model, "adamw", lr=0.1, fused=True)
model(images).sum().backward()
optimizer.step()
inspect.getmodule(model)
assert "torch._dynamo.eval_frame" not in sys.modules
assert "torch.distributed.tensor" not in sys.modules
import torch.distributed.tensor
assert torch.equal(torch.compile(model, backend="eager")(images), model(images))
assert "torch._dynamo.eval_frame" in sys.modules
assert torch._dynamo.config.cache_size_limit == 1_000_000  # which timm.optim has set before
""")
    assert code == 0, told


def test_a_progress_bar_passes_everything_on_and_is_silent_in_a_file(capsys):
    assert list(processes.progress(range(5))) == list(range(5))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
