"""A run in training: what all of its parts share, opened once."""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import torch

import model as models
import options
from background import matte
from common.processes import say
from dataset import Table, open_pixels, read_train
from experiment import run_folder
from labels import LAYOUTS
from photos.views import build_views
from training import optimization, teaching


@dataclass(frozen=True)
class Run:
    """One run of train.py.

    options: the Namespace of options.py; folder: of the run; table: its photos; labels: what they
    are taught; pixels: {task: photos.store.Pixels} of the photos of `labels`; mattes: {method: what
    the mattes are made with}.
    """

    options: Namespace
    folder: Path
    table: Table
    labels: teaching.Labels
    pixels: dict
    mattes: dict
    device: torch.device

    @property
    def tasks(self):
        """{task: the heads of its model}."""
        return LAYOUTS[options.layout_of(self.options)]


def open_run(args, device):
    """The Run of these options. All that can be wrong is found before its folder is made."""
    table = read_train(args.data_dir)
    for note in table.notes:
        say(f"{args.data_dir}: {note}")
    labels = teaching.read(args, table)
    if not run_folder.find_run(args, table):
        check_models(args)
    pixels, mattes = _open_pixels(args, labels, device)
    folder = run_folder.make_run(args, table)
    say(f"run {folder}")
    return Run(args, folder, table, labels, pixels, mattes, device)


def check_names(args):
    """UserError for a model or an optimizer that timm does not have."""
    for name in args.model.values():
        models.check_name(name)
    for name in args.optimizer.values():
        optimization.check_optimizer(name)


def check_models(args):
    """UserError if a model of the run cannot be built, frozen or optimized as the options say."""
    check_names(args)
    checked = []
    for task, heads in LAYOUTS[options.layout_of(args)].items():
        chosen = options.for_task(args, task)
        names = ("model", "resize", "weights", "freeze", "optimizer", "drop_path", "layer_decay")
        wanted = [chosen[name] for name in names]
        if wanted not in checked:
            checked.append(wanted)
            model = models.create(
                chosen["model"], heads, *wanted[1:3], drop_path=chosen["drop_path"]
            )
            optimization.freeze(model.backbone, chosen["freeze"])
            optimization.make_optimizer(model, chosen)


def _open_pixels(args, labels, device):
    """({task: Pixels}, {method: what its mattes are made with}); equal views share one store."""
    matting = matte.Matting(args.matte_dir, args.rembg_model, on_error=args.on_error)
    opened, pixels, mattes = {}, {}, {}
    for task in LAYOUTS[options.layout_of(args)]:
        chosen = options.for_task(args, task)
        views = build_views(*(chosen[name] for name in ("bg", "bg_fill", "crop", "resize")))
        if views not in opened:
            opened[views] = open_pixels(labels.sources, views, matting, args.cache_dir, device)
        pixels[task], made = opened[views]
        mattes |= made
    names = labels.names
    for name in sorted({names[i] for one in pixels.values() for i in one.broken}):
        say(f"left out, unreadable: {name}")
    return pixels, mattes
