"""Backbones, heads, weights and the model's file, against timm's own models."""

import json
import pickle
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import timm
import torch
from helpers import model_info
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

import labels
import model
from common import files
from common.errors import UserError
from labels import HEADS
from training.optimization import make_optimizer

INFO = model_info()
IMAGENET = files.WEIGHTS / "tf_efficientnet_lite0.safetensors"


def images(size, n=2):
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("task", [task for tasks in labels.LAYOUTS.values() for task in tasks])
def test_each_layout_gives_logits_for_its_heads(task):
    heads = next(tasks[task] for tasks in labels.LAYOUTS.values() if task in tasks)
    made = model.create("test_resnet", heads, (64, 48)).eval()
    logits = made(images((64, 48)))
    assert {head: tuple(value.shape) for head, value in logits.items()} == {
        head: (2, HEADS[head]) for head in heads
    }
    stacked = made.head(made.backbone(images((64, 48))))
    assert torch.equal(torch.cat(list(logits.values()), dim=1), stacked)
    for head, probs in model.probabilities(logits).items():
        torch.testing.assert_close(probs, logits[head].double().softmax(1).float())


def test_the_layouts_predict_everything():
    for tasks in labels.LAYOUTS.values():
        heads = [head for heads in tasks.values() for head in heads]
        assert sorted(heads) in (["label"], ["age", "gender", "mask"])


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mobilenetv3_small_050", (64, 48)),
        ("test_convnext", (96, 64)),
        ("vit_tiny_patch16_224", (96, 64)),
        ("test_efficientnet", (65, 47)),
    ],
)
def test_families_of_timm_at_any_size(name, size):
    made = model.create(name, ("label",), size, drop_rate=0.1).eval()
    assert made(images(size))["label"].shape == (2, 18)
    made.train()(images(size))["label"].sum().backward()
    assert all(p.grad is not None for p in made.parameters())
    config = timm.get_pretrained_cfg(name)
    assert model.normalization(made) == (list(config.mean), list(config.std))


def test_drop_path_reaches_the_backbone():
    made = model.create("test_convnext", ("label",), (64, 48), drop_path=0.4)
    rates = [m.drop_prob for m in made.modules() if type(m).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.4)


@pytest.mark.parametrize("drop_path", [0.0, 0.2])
def test_a_rate_of_timms_own_does_not_act(drop_path):
    """Swin would drop a tenth where it is not told a rate."""
    made = model.create("swin_tiny_patch4_window7_224", ("age",), (64, 64), drop_path=drop_path)
    rates = [m.drop_prob for m in made.modules() if type(m).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(drop_path)


def test_embeddings_of_positions_do_not_decay():
    made = model.create("test_vit", ("age",), (64, 48))
    optimizer = make_optimizer(made, {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05})
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert made.backbone.pos_embed.dim() > 1 and decay[id(made.backbone.pos_embed)] == 0
    assert decay[id(made.head.weight)] == 0.05


def test_an_unknown_name_lists_near_ones():
    with pytest.raises(UserError, match=r"timm has no such model; did you mean .*resnet18"):
        model.create("resnet_18", ("label",), (64, 48))
    with pytest.raises(UserError, match=r"zzzzzzzzz: timm has no such model$"):
        model.check_name("zzzzzzzzz")
    assert model.check_name("resnet18") == "resnet18"


def test_a_tag_that_timm_does_not_have_is_named():
    with pytest.raises(UserError, match=r"--model resnet18\.foo: Invalid pretrained tag"):
        model.check_name("resnet18.foo")


def test_what_cannot_be_built_is_not_called_a_fault_of_the_weights():
    with pytest.raises(UserError, match=r"densenet121 cannot be built .*drop_path_rate") as caught:
        model.create("densenet121", ("label",), (64, 48), "auto", drop_path=0.1)
    assert "\n" not in str(caught.value)


def test_patches_that_would_leave_a_part_of_the_photo_out_are_refused():
    with pytest.raises(UserError, match=r"patches of 16 x 16, .* rest of 100 x 96: give a --res"):
        made = model.create("vit_tiny_patch16_224", ("label",), (100, 96))
        model.check_patches(made, "vit_tiny_patch16_224", (100, 96))
    made = model.create("vit_tiny_patch16_224", ("label",), (112, 96)).eval()
    model.check_patches(made, "vit_tiny_patch16_224", (112, 96))
    photo = images((112, 96), 1).requires_grad_()
    made(photo)["label"].sum().backward()
    assert photo.grad.abs().sum((0, 1)).all()


@pytest.mark.parametrize("name", ["mobileone_s0", "repvgg_a0", "test_resnet"])
def test_channels_are_not_last_where_that_ends_the_process(name):
    """A stride in a 1x1 convolution of three channels: on a CPU its gradient is too long."""
    made, safe = model.create(name, ("label",), (64, 48)), name == "test_resnet"
    assert model.make_channels_last(made, torch.device("cuda")) is True
    made = model.create(name, ("label",), (64, 48))
    assert model.make_channels_last(made, torch.device("cpu")) is safe
    layout = torch.channels_last if safe else torch.contiguous_format
    convs = [module.weight for module in made.modules() if isinstance(module, torch.nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=layout) for weight in convs)
    made(images((64, 48)).contiguous(memory_format=layout))["label"].sum().backward()


def test_a_size_that_the_backbone_cannot_take_is_named():
    with pytest.raises(UserError, match=r"test_vit.*\(30, 20\)") as caught:
        model.create("test_vit", ("label",), (30, 20))
    assert "\n" not in str(caught.value)


def saved_backbone(path, name="test_resnet", seed=1):
    torch.manual_seed(seed)
    reference = timm.create_model(name).eval()
    save_file(reference.state_dict(), path)
    return reference


def same_features(made, reference, size):
    with torch.no_grad():
        return torch.equal(
            made.backbone.eval()(images(size)),
            reference.forward_head(reference.forward_features(images(size)), pre_logits=True),
        )


def test_auto_takes_the_local_file_and_a_path_takes_that_file(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "WEIGHTS", tmp_path)
    reference = saved_backbone(tmp_path / "test_resnet.safetensors")
    for weights in ("auto", str(tmp_path / "test_resnet.safetensors")):
        made = model.create("test_resnet", ("age",), (64, 48), weights)
        assert same_features(made, reference, (64, 48))
    assert not same_features(model.create("test_resnet", ("age",), (64, 48)), reference, (64, 48))


@pytest.mark.skipif(not IMAGENET.is_file(), reason="scripts/fetch_weights.py has not run")
def test_the_fetched_weights_fit_timm_strictly():
    reference = timm.create_model("tf_efficientnet_lite0").eval()
    reference.load_state_dict(load_file(IMAGENET), strict=True)
    made = model.create("tf_efficientnet_lite0", ("label",), (64, 48), "auto")
    assert same_features(made, reference, (64, 48))


def test_wrong_weights_are_named(tmp_path):
    saved_backbone(tmp_path / "other.safetensors", "test_efficientnet")
    (tmp_path / "damaged.safetensors").write_bytes(b"\x00" * 100)
    for name in ("other", "damaged"):
        with pytest.raises(UserError, match=f"{name}.safetensors does not hold weights") as caught:
            path = str(tmp_path / f"{name}.safetensors")
            model.create("test_resnet", ("label",), (64, 48), path)
        assert "\n" not in str(caught.value)


def test_weights_that_lack_a_part_of_the_model_are_refused(tmp_path):
    """As those of a model of ours, whose parts have other names. Timm would leave them random."""
    state = timm.create_model("test_resnet").state_dict()
    renamed = {f"backbone.{key}": value for key, value in state.items()}
    part = {key: value for key, value in state.items() if key != "layer4.0.conv1.weight"}
    for kept, missing in ((renamed, "conv1.0.weight"), (part, "layer4.0.conv1.weight")):
        save_file(kept, tmp_path / "part.safetensors")
        with pytest.raises(UserError, match=f"part.safetensors .*it has no {missing}"):
            model.create("test_resnet", ("label",), (64, 48), str(tmp_path / "part.safetensors"))


def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "WEIGHTS", tmp_path)
    with pytest.raises(
        UserError, match=r"weights/test_resnet\.safetensors.*--weights none"
    ) as caught:
        model.create("test_resnet", ("label",), (64, 48), "auto")
    assert "\n" not in str(caught.value)


class Payload:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.pth"])
def test_a_pickle_in_place_of_weights_runs_no_code(tmp_path, name):
    proof = tmp_path / "proof"
    for write in (lambda payload, file: pickle.dump(payload, file), torch.save):
        with (tmp_path / name).open("wb") as file:
            write({"state_dict": Payload(proof)}, file)
        with pytest.raises(UserError, match=name):
            model.create("test_resnet", ("label",), (64, 48), str(tmp_path / name))
        with pytest.raises(UserError, match=name):
            model.load_model(tmp_path / name)
        assert not proof.exists()


def test_a_saved_model_comes_back_the_same(tmp_path):
    torch.manual_seed(0)
    made = model.create("test_resnet", INFO.heads, INFO.size, drop_rate=0.5)
    made(images((64, 48)))  # moves the running statistics
    made.to(memory_format=torch.channels_last).eval()
    path = tmp_path / "fold0" / "best.safetensors"
    model.save_model(made, path, INFO)
    again, info = model.load_model(path)
    assert info == INFO == model.ModelInfo.read(path)
    said = json.loads((path.parent / "best.json").read_text(encoding="utf-8"))
    assert said == json.loads(json.dumps(asdict(info)))
    assert not again.training
    for head, logits in made(images((64, 48))).items():
        torch.testing.assert_close(again(images((64, 48)))[head], logits)
    for (key, a), (other, b) in zip(
        made.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert key == other and torch.equal(a, b)
    assert sorted(p.name for p in path.parent.iterdir()) == ["best.json", "best.safetensors"]


def test_a_part_that_a_model_uses_twice_is_saved_twice(tmp_path):
    made = model.create("test_resnet", INFO.heads, INFO.size)
    made.again = made.head
    model.save_model(made, tmp_path / "best.safetensors", INFO)
    state = load_file(tmp_path / "best.safetensors")
    assert torch.equal(state["again.weight"], state["head.weight"])


def test_years_are_one_output_more(tmp_path):
    made = model.create("test_resnet", ("age",), (64, 48), years=True).eval()
    photos = images((64, 48), 4)
    with torch.no_grad():
        features, found = made.backbone(photos), made(photos)
        plain = features @ made.head.weight.T + made.head.bias
    torch.testing.assert_close(found["age"], plain[:, :3])
    torch.testing.assert_close(found["years"], plain[:, 3])
    assert set(model.probabilities(found)) == {"age"}
    model.save_model(made, tmp_path / "a.safetensors", replace(INFO, heads=("age",), years=True))
    again, _ = model.load_model(tmp_path / "a.safetensors")
    torch.testing.assert_close(again(photos)["years"], found["years"])


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "best.safetensors"
    model.save_model(model.create("test_resnet", INFO.heads, INFO.size), path, INFO)
    whole = path.read_bytes()
    for content in (b"", whole[:20], whole[: len(whole) // 2], whole[:-1], b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"best\.safetensors is damaged") as caught:
            model.load_model(path)
        assert "\n" not in str(caught.value)
    saved_backbone(path)
    with pytest.raises(UserError, match=r"best\.safetensors does not describe a model"):
        model.load_model(path)
    save_file({}, path, metadata={"info": "{}"})
    with pytest.raises(UserError, match=r"best\.safetensors: model is missing"):
        model.load_model(path)
    with pytest.raises(UserError, match=r"nowhere\.safetensors does not exist"):
        model.load_model(tmp_path / "nowhere.safetensors")
    made = model.create("test_resnet", INFO.heads, INFO.size)
    model.save_model(made, path, replace(INFO, heads=("mask", "age")))
    with pytest.raises(UserError, match=r"best\.safetensors does not fit"):
        model.load_model(path)
    del made.head.bias
    model.save_model(made, path, INFO)
    with pytest.raises(UserError, match=r"best\.safetensors does not fit test_resnet"):
        model.load_model(path)


def test_without_a_hub_weights_are_refused_at_once(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    start = time.monotonic()
    with pytest.raises(UserError, match=r"weights/resnet34\.safetensors.* --weights none"):
        model.create("resnet34", ["label"], (32, 32), "auto")
    assert time.monotonic() - start < 10
