"""Where the models look: Grad-CAM of each attribute, and how much of it falls on the person."""

import tempfile
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pandas as pd
import torch
from captum.attr import LayerAttribution, LayerGradCam

import augment
from background.matte import Matting
from background.pixels import open_pixels
from common.errors import UserError
from common.processes import progress, say
from experiment import predictions
from experiment.reader import fold_folder
from labels import ATTRIBUTES, CLASS_NAMES, LAYOUTS
from photos import store
from photos.reading import matte_path
from photos.views import METHODS, build_views
from reporting import page
from reporting.page import html

COUNTED = 5  # photos of each class behind the figures of energy, at least
SHOWN = 4  # runs whose maps are shown
BATCH = 32
CELLS = 3  # a coarser map cannot tell the person from the background
SIZE = (72, 96)  # width and height of a picture on the page


def attribute_logits(logits, attribute):
    """(n, K) scores of an attribute's values; of 18-class logits, the log of the summed exp."""
    if attribute in logits:
        return logits[attribute]
    others = {"mask": (2, 3), "gender": (1, 3), "age": (1, 2)}[attribute]
    return logits["label"].reshape(-1, 3, 2, 3).logsumexp(others)


def maps(model, info, images, attribute):
    """(n, H, W) float32 >= 0: Grad-CAM (Selvaraju et al. 2017) of the predicted value, at the last
    stage that timm lists whose map has CELLS cells or more on its shorter side.

    images: uint8 (n, 3, H, W). UserError if the backbone does not end in a map (n, channels, h, w),
    as transformers of tokens do not.
    """
    backbone, size = model.backbone, tuple(images.shape[2:])
    modules, shapes = dict(backbone.named_modules()), {}
    stages = [s["module"] for s in getattr(backbone, "feature_info", []) if s["module"] in modules]

    def note(name, _, __, found):
        shapes[name] = getattr(found, "shape", ())  # a list of maps has none

    hooks = [modules[name].register_forward_hook(partial(note, name)) for name in stages]
    with torch.no_grad():
        last = backbone.forward_features(torch.zeros(1, 3, *size))
    for hook in hooks:
        hook.remove()
    fine = [n for n in stages if len(s := shapes.get(n, ())) == 4 and min(s[2:]) >= CELLS]
    channels = getattr(last, "shape", ())[1:2]
    if not fine or last.ndim != 4 or channels != (backbone.num_features,):
        raise UserError(f"{info.model} has no feature map that Grad-CAM could show")

    def predicted(batch):
        return attribute_logits(model(batch), attribute).amax(1)

    found, explain = [], LayerGradCam(predicted, backbone.get_submodule(fine[-1]))
    for part in images.split(BATCH):
        batch = augment.normalize(part, info.mean, info.std)
        cam = explain.attribute(batch, relu_attributions=True)
        found.append(LayerAttribution.interpolate(cam, size, "bilinear")[:, 0].detach().numpy())
    return np.concatenate(found)


def choose(rows, run, count, seed):
    """Up to `count` photos a class, of different people where it can be: row numbers, of the
    first fold, so that few models need to be loaded.
    """
    first = rows[(run.oof.fold == run.oof.fold.min()).to_numpy()]
    first = first.sample(frac=1, random_state=seed)
    first = first.assign(again=first.groupby(["label", "person"]).cumcount())
    first = first.sort_values(["label", "again"], kind="stable")
    return first.groupby("label").head(count).index.to_numpy()


def look(evidence, run, chosen, cache):
    """{attribute: (pictures, maps, view)} of one run, on the photos in the rows `chosen`, each of
    which the model of its fold sees, that never saw the person.

    pictures: uint8 (n, 3, H, W), the first view of the model; maps: of maps().
    """
    if "oof_of" in run.config:
        raise UserError("it is a score of other runs and has no models of its own")
    result, folds, every = {}, run.oof.fold.to_numpy()[chosen], torch.arange(len(chosen))
    source = evidence.data.root, evidence.rows.image[chosen].tolist()
    for task, heads in LAYOUTS[run.config["layout"]].items():
        for fold in np.unique(folds):
            path = fold_folder(run.folder, fold) / task / "best.safetensors"
            model, info = predictions.load(path, heads)
            view = build_views(*info.view)[0]
            matting = Matting(evidence.matte_dir, info.rembg_model)
            pixels, _ = open_pixels(source, (view,), matting, cache, torch.device("cpu"))
            pictures = pixels.batch(every, 0)
            at = np.flatnonzero(folds == fold)
            for name in ATTRIBUTES if "label" in heads else heads:
                empty = np.zeros(pictures[:, 0].shape, np.float32)
                result.setdefault(name, (pictures.numpy(), empty, view))
                result[name][1][at] = maps(model, info, pictures[at], name)
    return result


def _add_mattes(evidence, chosen, found, cache):
    """Puts mattes, float32 (n, H, W) in 0..1, in place of the views of `found`, {run: look()}, and
    returns their method, the best that has those of all photos: of a run's views they have just
    been made. UserError if none has, or if one is not of its photo.
    """
    root, names = evidence.data.root, evidence.rows.image[chosen].tolist()
    for method in reversed(METHODS):
        paths = (matte_path(evidence.matte_dir, method, name) for name in names)
        if all(path.is_file() for path in paths):
            break
    else:
        raise UserError("it needs the mattes of these photos: run preprocess.py")
    for looks in found.values():
        for name, (pictures, cam, view) in looks.items():
            views = (replace(view, method=method, fill="matte"),)
            alphas = store.load(root, names, views, cache, matte_dir=evidence.matte_dir)
            mattes = alphas.batch(torch.arange(len(chosen)), 0)[:, 0].numpy()
            looks[name] = pictures, cam, mattes / np.float32(255)
    return method


def build(evidence, count):
    """Section "Where it looks", of the first seed of each group. count: photos shown a class."""
    first, found, notes = evidence.groups[0].runs[0], {}, []
    chosen = choose(evidence.rows, first, max(count, COUNTED), evidence.seed)
    with tempfile.TemporaryDirectory() as cache:
        for group in progress(evidence.groups, desc="Grad-CAM", unit="run"):
            try:
                found[group.name] = look(evidence, group.runs[0], chosen, cache)
            except UserError as error:
                notes.append(f"{group.name} is left out: {str(error).partition('; ')[0]}")
                say(f"note: Grad-CAM: {notes[-1]}")
        try:
            method = _add_mattes(evidence, chosen, found, cache)
        except UserError as error:
            method = None
            notes.append(f"No share on the person is measured: {error}")
    blocks = [html.notes(notes)]
    if found and method:
        caption = (
            f"Energy: share of the maps on the person (matte: {method}), without maps that are "
            "zero. Area: the person's share of the image, which a blind map would have."
        )
        blocks.append(page.keep(evidence, "cam_energy", energy(found), caption))
    if found:
        blocks.append(_pictures(evidence.rows.label.iloc[chosen], found, count))
    intro = (
        "Grad-CAM weighs the last feature map by what raises the predicted value. The maps are "
        "coarse: read them as a tendency over many photos."
    )
    return {"title": "Where it looks", "intro": intro, "blocks": blocks}


def energy(found):
    """A frame with a row a run and attribute: energy (mean share on the person), area (the person's
    share of the image), photos whose map is not zero everywhere. found: {run: look()}.
    """
    lines = []
    for run, looks in found.items():
        for name, (_, cam, matte) in looks.items():
            share = pd.Series((cam * matte).sum((1, 2))) / pd.Series(cam.sum((1, 2)))
            line = {"energy": share.mean(), "area": matte.mean(), "photos": share.count()}
            lines.append({"run": run, "attribute": name} | line)
    return pd.DataFrame(lines)


def _pictures(classes, found, count):
    """A row a photo: for each run its map of each attribute."""
    rows, shown = [], list(found.items())[:SHOWN]
    classes = classes.reset_index(drop=True)
    for at in classes.groupby(classes).head(count).index:
        row = {"class": CLASS_NAMES[int(classes[at])]}
        for run, looks in shown:
            for name, (pictures, cam, _) in looks.items():
                photo = pictures[at].transpose(1, 2, 0)
                photo = cv2.resize(photo, SIZE, interpolation=cv2.INTER_AREA)
                uri = page.data_uri(overlay(photo, cv2.resize(cam[at], SIZE)))
                row[f"{run} {name}"] = html.picture(uri, f"{row['class']}: {name}")
        rows.append(row)
    note = f"Brighter is where the prediction comes from. {len(shown)} of {len(found)} runs."
    return page.table(pd.DataFrame(rows), note, kind="grid")


def overlay(photo, cam):
    """uint8 (H, W, 3): the photo greyed, with the map over it, scaled to its own maximum."""
    heat = (255 * cam / max(cam.max(), 1e-12)).astype(np.uint8)
    colour = cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO)[..., ::-1]
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[..., None]
    return (0.5 * grey + 0.5 * colour).astype(np.uint8)
