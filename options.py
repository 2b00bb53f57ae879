"""What the options of training mean for a layout and a task, and which contradict each other.

`--lr 3e-4 age=1e-4` gives 3e-4 to every model and 1e-4 to the age model of a --split_heads run;
`--resize 128 96 age=224,168` overrides an option of two values. Parsed, such an option is
{"": 3e-4, "age": 1e-4}; for_task() resolves it for one task.
"""

import augment
import loss
from common import UserError
from model import LAYOUTS

# Options that a head has, not a model: with a shared backbone they too may differ by attribute.
PER_HEAD = ("criterion", "label_smoothing", "class_weights")


def layout_of(args):
    """ "joint", "split" or "shared"."""
    return "split" if args.split_heads else "shared" if args.shared_backbone else "joint"


def per_task(args):
    """Names of the options that may be overridden by attribute."""
    return [name for name, value in vars(args).items() if isinstance(value, dict)]


def for_task(args, task):
    """{option: value} of one task of the layout; options of PER_HEAD are {head: value}."""
    heads = LAYOUTS[layout_of(args)][task]
    values = {}
    for name in per_task(args):
        value = getattr(args, name)
        if name in PER_HEAD:
            values[name] = {head: value.get(head, value[""]) for head in heads}
        else:
            values[name] = value.get(task, value[""])
    return values


def check(args):
    """UserError for flags that contradict each other."""
    layout = layout_of(args)
    for name in per_task(args):
        overrides = [key for key in getattr(args, name) if key]
        if overrides and (layout == "joint" or (layout == "shared" and name not in PER_HEAD)):
            raise UserError(
                f"--{name} {overrides[0]}=...: this run has no {overrides[0]} model; "
                "add --split_heads"
            )
    for task in LAYOUTS[layout]:
        options = for_task(args, task)
        mixes = [name for name in augment.MIXES if options[name]]
        if len(mixes) > 1:
            raise UserError(f"--{mixes[0]} and --{mixes[1]} exclude each other: choose one")
        if options["freeze"] == "all" and mixes:
            raise UserError(f"--freeze all computes features once: leave out --{mixes[0]}")
        if options["age_given"] != "none" and layout != "split":
            raise UserError("--age_given mask: this run has no age model; add --split_heads")
        choosing = [name for name in ("average", "early_stop") if options[name]]
        if options["keep"] == "last" and choosing:
            raise UserError(f"--keep last chooses no epoch, --{choosing[0]} does: leave one out")
        for head, name in options["criterion"].items():
            smoothing, power = options["label_smoothing"][head], options["class_weights"][head]
            if {term for term, _ in loss.parse(name)} == {"f1"} and (smoothing or power):
                raise UserError(
                    "--criterion f1 uses neither --label_smoothing nor "
                    "--class_weights: leave them out, or add focal or cross_entropy"
                )
