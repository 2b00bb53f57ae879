"""Where the models look: Grad-CAM of each attribute, and how much of it falls on the person."""

import tempfile

import cv2
import numpy as np
import pandas as pd
import torch

import labels
import model as models
from common.errors import UserError
from common.processes import progress, say
from labels import ATTRIBUTES, CLASS_NAMES, CLASSES, decode
from photos import store, views
from reporting import figures, page, survey

COUNTED = 5  # photos of each class behind the figure of energy, at least
SHOWN = 4  # runs whose maps are shown
BATCH = 32
CELLS = 3  # a coarser map cannot tell the person from the background
SIZE = (72, 96)  # width and height of a picture on the page


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
    codes = decode(np.arange(CLASSES))[attribute]
    parts = [
        logits["label"][:, torch.from_numpy(codes == k)].logsumexp(1)
        for k in range(len(ATTRIBUTES[attribute]))
    ]
    return torch.stack(parts, 1)


def maps(model, info, images, attribute):
    """(n, H, W) float32 >= 0: Grad-CAM (Selvaraju et al. 2017) of the predicted value.

    images: uint8 (n, 3, H, W). UserError if the model has no feature map.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    layer = feature_map(model.backbone, images.shape[2:])
    if layer is None:
        raise UserError(f"{info['model']} has no feature map that Grad-CAM could show")
    mean, std = (torch.tensor(info[key]).view(3, 1, 1) for key in ("mean", "std"))

    def forward(batch):
        return attribute_logits(model(batch), attribute)

    found, explain = [], LayerGradCam(forward, layer)
    for part in images.split(BATCH):
        batch = (part.float() / 255 - mean) / std
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
    rng = np.random.default_rng(seed)
    first = (run.oof.fold == run.oof.fold.min()).to_numpy()
    chosen = []
    for label in range(CLASSES):
        at = np.flatnonzero(first & (rows.label.to_numpy(int) == label))
        at = rng.permutation(at)
        order = np.argsort(pd.Series(rows.person.to_numpy()[at]).duplicated(), kind="stable")
        chosen += at[order][:count].tolist()
    return np.array(chosen, dtype=int)


def look(run, names, folds, data, matte_dir, method, cache):
    """{attribute: (pictures, maps, mattes)} of one run, on photos `names` below the data's root.

    folds: (n,) the fold of each photo, whose model never saw the person. pictures: uint8
    (n, 3, H, W) as the model sees them; maps: (n, H, W); mattes: (n, H, W) 0..1 under the same
    crop, or None without `method`. Of a model of several views it is the first.
    """
    if "oof_of" in run.config:
        raise UserError("it is a score of other runs and has no models of its own")
    result, every = {}, torch.arange(len(names))
    for task, heads in labels.LAYOUTS[run.config["layout"]].items():
        paths = {k: run.folder / f"fold{k}" / task / "best.safetensors" for k in np.unique(folds)}
        info = models.read_info(next(iter(paths.values())))
        view = views.views(info["bg"], info["bg_fill"], info["crop"], info["size"])[0]
        images = store.load(data.root, names, [view], cache, matte_dir).batch(every, 0)
        mattes = None
        if method:
            alpha = views.View(method, "matte", view.crop, view.crop_method, view.size)
            mattes = store.load(data.root, names, [alpha], cache, matte_dir).batch(every, 0)
            mattes = mattes[:, 0].numpy() / np.float32(255)
        for attribute in ATTRIBUTES:
            if attribute in heads or "label" in heads:
                full = np.zeros(images[:, 0].shape, np.float32)
                result[attribute] = images.numpy(), full, mattes
        for fold, path in paths.items():
            model, info = models.load_model(path)
            at = np.flatnonzero(folds == fold)
            for attribute in ATTRIBUTES:
                if attribute in heads or "label" in heads:
                    part = images[torch.from_numpy(at)]
                    result[attribute][1][at] = maps(model, info, part, attribute)
    return result


def build(tables, rows, data, groups, matte_dir, count, seed):
    """Section "Where it looks", of the first seed of each group."""
    methods = survey.matte_methods(matte_dir)
    method = methods[0] if methods else None
    chosen = choose(rows, groups[0].runs[0], max(count, COUNTED), seed)
    names = rows.image.iloc[chosen].tolist()
    found, problems = {}, []
    with tempfile.TemporaryDirectory() as cache:
        for group in progress(groups, desc="Grad-CAM", unit="run"):
            run = group.runs[0]
            folds = run.oof.fold.to_numpy(int)[chosen]
            try:
                found[group.name] = look(run, names, folds, data, matte_dir, method, cache)
            except UserError as error:
                problems.append(f"{group.name}: {error}")
                say(f"note: Grad-CAM of {group.name} is left out: {error}")
    picked = rows.iloc[chosen].reset_index(drop=True)
    blocks = [page.notes(problems)]
    if method:
        blocks += _energy(tables, picked, found, method)
    elif found:
        blocks.append(page.text("Without mattes (preprocess.py) no share can be measured."))
    if found:
        blocks.append(_pictures(picked, found, count))
    intro = (
        "Grad-CAM weighs the last feature map by what raises the predicted value. The maps are "
        "coarse: read them as a tendency over many photos."
    )
    return page.section("looks", "Where it looks", intro, blocks)


def _energy(tables, picked, found, method):
    """The share of energy on the person: a sentence a run against the first, figure and table."""
    shares, lines = {}, []
    for name, attributes in found.items():
        for attribute, (_, cam, matte) in attributes.items():
            share = share_on(cam, matte)
            shares[name, attribute] = share
            lines.append(
                {
                    "run": name,
                    "attribute": attribute,
                    "energy": float(np.nanmean(share)) if np.isfinite(share).any() else np.nan,
                    "area": float(matte.mean()),
                    "photos": int(np.isfinite(share).sum()),
                }
            )
    if not lines:
        return []
    frame = pd.DataFrame(lines)
    names = list(found)
    words = [_moved(picked, shares, names[0], other) for other in names[1:]]
    caption = (
        f"Share of the map's energy on the person (matte: {method}), and the person's share of "
        "the image, which a map that knows nothing would have. Maps that are zero are left out."
    )
    return [
        page.notes(words),
        page.figure(figures.energy(frame)),
        page.keep(tables, "cam_energy", frame, caption),
    ]


def _moved(picked, shares, first, other):
    """A sentence: by how much `other` looks more at the person than `first`, over people."""
    differences = [shares[other, name] - shares[first, name] for name in ATTRIBUTES]
    people = pd.DataFrame(differences).mean().groupby(picked.person.to_numpy()).mean().dropna()
    if len(people) < 2:
        return f"{other} vs {first}: too few maps are more than zero to compare them."
    mean, half = people.mean(), 1.96 * people.std() / np.sqrt(len(people))
    if mean - half > 0:
        verdict = "it looks more at the person"
    elif mean + half < 0:
        verdict = "it looks more at the background"
    else:
        verdict = "no evidence that the eyes moved"
    interval = page.span(mean - half, mean + half, True)
    return f"{other} vs {first}: {page.signed(mean)} {interval} of the energy: {verdict}."


def _pictures(picked, found, count):
    """A row a photo; for each run what the model sees and its map of each attribute."""
    names = list(found)[:SHOWN]
    head, columns = [("", 1)], ["class"]
    for name in names:
        head.append((name, 1 + len(ATTRIBUTES)))
        columns += ["sees", *ATTRIBUTES]
    rows = []
    for label in range(CLASSES):
        for at in np.flatnonzero(picked.label.to_numpy(int) == label)[:count]:
            images = []
            for name in names:
                for k, attribute in enumerate(ATTRIBUTES):
                    pictures, cam, _ = found[name][attribute]
                    photo = np.ascontiguousarray(pictures[at].transpose(1, 2, 0))
                    if k == 0:
                        images.append(_uri(photo))
                    images.append(_uri(overlay(photo, cam[at])))
            rows.append((CLASS_NAMES[label], images))
    note = f"Brighter is where the prediction comes from. {len(names)} of {len(found)} runs."
    return page.grid(head, columns, rows, note)


def overlay(photo, cam):
    """uint8 (H, W, 3): the photo greyed, with the map over it, scaled to its own maximum."""
    heat = (255 * cam / max(cam.max(), 1e-12)).astype(np.uint8)
    colour = cv2.cvtColor(cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None]
    share = 0.65 * heat[..., None] / 255
    return (grey * (1 - share) + colour * share).astype(np.uint8)


def _uri(photo):
    return survey.data_uri(cv2.resize(photo, SIZE, interpolation=cv2.INTER_AREA), 60)
