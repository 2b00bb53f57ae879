"""Where the models look: Grad-CAM of each attribute, and how much of it falls on the person."""

import tempfile
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import torch

import model as models
from background.matte import Matting
from background.pixels import open_pixels
from common.errors import UserError
from common.processes import progress, say
from labels import ATTRIBUTES, CLASS_NAMES, CLASSES, LAYOUTS
from photos import store
from photos.views import build_views
from reporting import data_section, figures, page
from reporting.page import html

COUNTED = 5  # photos of each class behind the figure of energy, at least
SHOWN = 4  # runs whose maps are shown
BATCH = 32
CELLS = 3  # a coarser map cannot tell the person from the background
SIZE = (72, 96)  # width and height of a picture on the page


# ---- what a saved model says of its input


def inputs(evidence, names, info, method, cache):
    """(pictures, mattes) of photos below the data's root, in the first view of a saved model.

    pictures: uint8 tensor (n, 3, H, W) as the model sees them; mattes: (n, H, W) 0..1 under the
    same crop, None without `method`.
    """

    every, source = torch.arange(len(names)), (evidence.data.root, names)
    view, matting = build_views(*info.view)[0], Matting(evidence.matte_dir, info.rembg_model)
    photos, _ = open_pixels([source], (view,), matting, cache, torch.device("cpu"))
    if not method:
        return photos.batch(every, 0), None
    alpha = replace(view, method=method, fill="matte")
    mattes = store.load([source], [alpha], cache, matte_dir=evidence.matte_dir).batch(every, 0)
    return photos.batch(every, 0), mattes[:, 0].numpy() / np.float32(255)


def normalized(images, info):
    """float32 (n, 3, H, W) of uint8 ones, less the model's mean, by its std."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (info.mean, info.std))
    return (images.float() / 255 - mean) / std


# ---- maps


def feature_map(backbone, size):
    """The last layer or block whose output is a feature map (n, channels, h, w) of CELLS cells or
    more on its shorter side. None if the backbone does not end in one, as transformers of tokens
    do not.
    """
    found, hooks = [], []

    def note(module, _, output):
        if torch.is_tensor(output) and output.ndim == 4 and min(output.shape[2:]) >= CELLS:
            found.append(module)

    for name, module in backbone.named_modules():
        if name and name.count(".") < 2:  # deeper ones may lie beside a shortcut
            hooks.append(module.register_forward_hook(note))
    with torch.no_grad():
        photo = torch.zeros(1, 3, *size, device=next(backbone.parameters()).device)
        last = backbone.forward_features(photo)
        for hook in hooks:
            hook.remove()
    ends_in_one = last.ndim == 4 and last.shape[1] == backbone.num_features
    return found[-1] if found and ends_in_one else None


def attribute_logits(logits, attribute):
    """(n, K) scores of an attribute's values; of 18-class logits, the log of the summed exp.

    An age that depends on the mask state is the mean over the states.
    """
    if attribute in logits:
        scores = logits[attribute]
        return scores.mean(1) if scores.dim() == 3 else scores
    others = {"mask": (2, 3), "gender": (1, 3), "age": (1, 2)}[attribute]
    return logits["label"].reshape(-1, 3, 2, 3).logsumexp(others)


def maps(model, info, images, attribute):
    """(n, H, W) float32 >= 0: Grad-CAM (Selvaraju et al. 2017) of the predicted value.

    images: uint8 (n, 3, H, W). UserError if the model has no feature map.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    layer = feature_map(model.backbone, images.shape[2:])
    if layer is None:
        raise UserError(f"{info.model} has no feature map that Grad-CAM could show")

    def forward(batch):
        return attribute_logits(model(batch), attribute)

    found, explain = [], LayerGradCam(forward, layer)
    for part in images.split(BATCH):
        batch = normalized(part, info)
        with torch.no_grad():
            value = forward(batch).argmax(1)
        cam = explain.attribute(batch, value, relu_attributions=True)
        full = LayerAttribution.interpolate(cam, tuple(images.shape[2:]), "bilinear")
        found.append(full[:, 0].detach().numpy())
    return np.concatenate(found)


def share_on(cam, matte):
    """(n,) share of each map's energy on the person; NaN where a map is zero everywhere."""
    total = cam.sum((1, 2))
    inside = (cam * matte).sum((1, 2))
    return np.divide(inside, total, out=np.full(len(cam), np.nan), where=total > 0)


def choose(rows, run, count, seed):
    """Up to `count` photos a class, of different people where it can be: row numbers, of the
    first fold, so that few models need to be loaded.
    """
    rng, chosen = np.random.default_rng(seed), []
    first = (run.oof.fold == run.oof.fold.min()).to_numpy()
    for label in range(CLASSES):
        at = rng.permutation(np.flatnonzero(first & (rows.label.to_numpy(int) == label)))
        again = pd.Series(rows.person.to_numpy()[at]).duplicated()
        chosen += at[np.argsort(again, kind="stable")][:count].tolist()
    return np.array(chosen, dtype=int)


def look(evidence, run, chosen, method, cache):
    """{attribute: (pictures, maps, mattes)} of one run, on the photos in the rows `chosen`.

    Each photo is shown to the model of its fold, which never saw the person. pictures and mattes:
    of `inputs`, as arrays; maps: (n, H, W).
    """
    if "oof_of" in run.config:
        raise UserError("it is a score of other runs and has no models of its own")
    names, folds = evidence.rows.image.iloc[chosen].tolist(), run.oof.fold.to_numpy(int)[chosen]
    result = {}
    for task, heads in LAYOUTS[run.config["layout"]].items():
        paths = {k: run.folder / f"fold{k}" / task / "best.safetensors" for k in np.unique(folds)}
        info = models.ModelInfo.read(next(iter(paths.values())))
        images, mattes = inputs(evidence, names, info, method, cache)
        own = [name for name in ATTRIBUTES if name in heads or "label" in heads]
        found = {name: np.zeros(images[:, 0].shape, np.float32) for name in own}
        for fold, path in paths.items():
            at = np.flatnonzero(folds == fold)
            model, info = models.load_model(path)
            for name in own:
                found[name][at] = maps(model, info, images[at], name)
        result |= {name: (images.numpy(), found[name], mattes) for name in own}
    return result


# ---- the section


def build(evidence, count):
    """Section "Where it looks", of the first seed of each group. count: photos shown a class."""
    method = next(iter(data_section.matte_methods(evidence.matte_dir)), None)
    first = evidence.groups[0].runs[0]
    chosen = choose(evidence.rows, first, max(count, COUNTED), evidence.seed)
    found, problems = {}, []
    with tempfile.TemporaryDirectory() as cache:
        for group in progress(evidence.groups, desc="Grad-CAM", unit="run"):
            try:
                found[group.name] = look(evidence, group.runs[0], chosen, method, cache)
            except UserError as error:
                problems.append(f"{group.name}: {error}")
                say(f"note: Grad-CAM of {group.name} is left out: {error}")
    picked, blocks = evidence.rows.iloc[chosen].reset_index(drop=True), [html.notes(problems)]
    if found and method:
        blocks.append(_energy(evidence, picked.person, found, method))
    elif found:
        blocks.append(html.text("Without mattes (preprocess.py) no share can be measured."))
    if found:
        blocks.append(_pictures(picked.label, found, count))
    intro = (
        "Grad-CAM weighs the last feature map by what raises the predicted value. The maps are "
        "coarse: read them as a tendency over many photos."
    )
    return page.section("looks", "Where it looks", intro, blocks)


def _energy(evidence, persons, found, method):
    """The share of energy on the person: a sentence a run against the first, figure and table."""
    cells = {(run, name): cell for run, cells in found.items() for name, cell in cells.items()}
    shares = pd.DataFrame({key: share_on(cam, matte) for key, (_, cam, matte) in cells.items()})
    areas = [float(matte.mean()) for _, _, matte in cells.values()]
    frame = pd.DataFrame({"energy": shares.mean(), "area": areas, "photos": shares.count()})
    frame = frame.rename_axis(["run", "attribute"]).reset_index()
    first, *others = found
    caption = (
        f"Share of the map's energy on the person (matte: {method}), and the person's share of "
        "the image, which a map that knows nothing would have. Maps that are zero are left out."
    )
    return (
        html.notes([moved(shares, persons, first, other) for other in others])
        + html.figure(figures.energy(frame))
        + page.keep(evidence, "cam_energy", frame, caption)
    )


def moved(shares, persons, first, other):
    """A sentence: by how much the run `other` looks more at the person than the run `first`.

    shares: frame, a row a photo, a column a (run, attribute); persons: (n,) of the photos. The
    interval is over people.
    """
    change = (shares[other] - shares[first]).mean(axis=1)
    people = change.groupby(np.asarray(persons)).mean().dropna()
    if len(people) < 2:
        return f"{other} vs {first}: too few maps are more than zero to compare them."
    mean, half = people.mean(), 1.96 * people.std() / np.sqrt(len(people))
    verdict = "no evidence that the eyes moved"
    if abs(mean) > half:
        verdict = f"it looks more at the {'person' if mean > 0 else 'background'}"
    change = page.change(mean, mean - half, mean + half)
    return f"{other} vs {first}: {change} of the energy: {verdict}."


def _pictures(classes, found, count):
    """A row a photo; for each run what the model sees and its map of each attribute."""
    names, rows = list(found)[:SHOWN], []
    for at in classes.groupby(classes).head(count).index:
        images = []
        for name in names:
            maps = [
                (np.ascontiguousarray(pictures[at].transpose(1, 2, 0)), cam[at])
                for pictures, cam, _ in found[name].values()
            ]
            images += [maps[0][0], *(overlay(photo, cam) for photo, cam in maps)]
        rows.append((CLASS_NAMES[int(classes[at])], [_uri(image) for image in images]))
    head = [("", 1), *((name, 1 + len(ATTRIBUTES)) for name in names)]
    columns = ["class", *["sees", *ATTRIBUTES] * len(names)]
    note = f"Brighter is where the prediction comes from. {len(names)} of {len(found)} runs."
    return html.grid(head, columns, rows, note)


def overlay(photo, cam):
    """uint8 (H, W, 3): the photo greyed, with the map over it, scaled to its own maximum."""
    heat = (255 * cam / max(cam.max(), 1e-12)).astype(np.uint8)
    colour = cv2.cvtColor(cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None]
    share = 0.65 * heat[..., None] / 255
    return (grey * (1 - share) + colour * share).astype(np.uint8)


def _uri(photo):
    return page.data_uri(cv2.resize(photo, SIZE, interpolation=cv2.INTER_AREA), 60)
