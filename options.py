"""What the options of training mean for a layout and a task, and which contradict each other.

`--lr 3e-4 age=1e-4` gives 3e-4 to every model and 1e-4 to the age model of a --split_heads run;
`--resize 128 96 age=224,168` overrides an option of two values. Parsed, such an option is
{"": 3e-4, "age": 1e-4}; for_task() resolves it for one task.
"""

import os
from pathlib import Path

import augment
import loss
from background import matte
from common import flags
from common.errors import UserError
from labels import LAYOUTS, OLD_FROM
from model import check_name
from photos import crops, views

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


SCHEDULERS = ("cosine", "step", "plateau", "none")
VIEW_METHODS = ("none", *matte.METHODS)


def background(word):
    """--bg: methods joined by +, each once."""
    methods = word.split("+")
    for method in methods:
        flags.one_of(*VIEW_METHODS)(method)
    if len(set(methods)) < len(methods):
        raise UserError(f"{word!r} names a view twice")
    return word


def criterion(word):
    loss.parse(word)
    return word


def weights(word):
    if word not in ("auto", "none") and not Path(word).is_file():
        raise UserError(f"{word}: no such file; give a file, auto or none")
    return word


def stages(word):
    return word if word == "all" else flags.number(int, 0)(word)


def optimizer(word):
    from timm.optim import list_optimizers

    if word.lower() not in list_optimizers():
        raise UserError(f"timm has no optimizer {word!r}, e.g. adamw, sgd, lion")
    return word.lower()


def add_to(parser):
    """Adds every flag of train.py to an argparse parser."""
    _data_flags(parser)
    _label_flags(parser)
    _run_flags(parser)
    _layout_flags(parser)
    group = parser.add_argument_group("what a model sees (each may be overridden by attribute)")
    add = flags.adder(group)
    add("--bg", "none", background, "view: " + "|".join(VIEW_METHODS) + ", or some joined by +")
    add(
        "--bg_fill",
        "mean",
        flags.one_of(*views.FILLS),
        "in place of the background: "
        "black|mean|blur|random (another photo's background each time, in training only)",
    )
    add("--crop", "none", flags.one_of(*crops.NAMES), "none|center|person (head and shoulders)")
    add("--resize", [128, 96], flags.number(int, 8), "height and width", count=2)
    add(
        "--progressive",
        1.0,
        flags.number(float, 0.25, 1),
        "share of the height and width that the first epoch sees, growing to the whole over two "
        "thirds of the epochs; 1 is off",
        bare=0.5,
    )
    add("--augmentation", "light", flags.one_of(*augment.STRENGTHS), "none|light|strong")
    add("--mixup", 0.0, flags.number(float, 0), "Beta parameter of mixup, 0 is off", bare=0.2)
    add("--cutmix", 0.0, flags.number(float, 0), "Beta parameter of CutMix, 0 is off", bare=1.0)
    add("--cutmix_half", False, flags.switch, "CutMix of vertical halves", bare=True)
    add(
        "--weighted_sampler",
        0.0,
        flags.number(float, 0),
        "draw images by (class frequency)^-POWER; without a value 1",
        bare=1.0,
    )
    _model_flags(parser)
    _optimisation_flags(parser)
    _speed_flags(parser)


def _data_flags(parser):
    group = parser.add_argument_group("data")
    add = group.add_argument
    add(
        "--data_dir",
        default=os.environ.get("SM_CHANNEL_TRAIN", "data/train"),
        help="folder with train.csv, or its images folder (default: $SM_CHANNEL_TRAIN or "
        "data/train)",
    )
    add(
        "--k_fold",
        type=flags.typed(flags.number(int, 0)),
        default=0,
        help="train this many folds and validate everybody once; 0 is one hold-out (default: 0)",
    )
    add(
        "--fold",
        type=flags.typed(flags.number(int, 0)),
        nargs="+",
        metavar="K",
        help="only these folds of the run --name; other processes may train the others "
        "(default: all)",
    )
    add(
        "--val_ratio",
        type=flags.typed(flags.number(float, 0, 0.99)),
        default=0.2,
        help="share of the people held out; 0 trains on everybody (default: 0.2)",
    )
    add("--seed", type=int, default=42, help="of the split and of training (default: 42)")
    add(
        "--on_error",
        choices=("stop", "skip"),
        default="stop",
        help="an unreadable photo stops, or is left out and counted (default: stop)",
    )
    add("--cache_dir", default="cache", help="folder of the decoded photos (default: cache)")
    add(
        "--matte_dir",
        help="folder of the mattes, which are made where they are missing (default: mattes/ "
        "beside the images)",
    )
    add(
        "--rembg_model",
        default="u2netp",
        help="matting network of rembg: a name or an .onnx file (default: u2netp)",
    )


def _label_flags(parser):
    group = parser.add_argument_group("labels of training (act on training rows only)")
    add = group.add_argument
    add(
        "--label_fixes",
        metavar="CSV",
        help="labels to mend: id, field, from, to, confidence, note (default: none)",
    )
    add(
        "--label_fixes_level",
        choices=("sure", "all"),
        default="sure",
        help="the fixes that are sure, or all of the file (default: sure)",
    )
    add(
        "--old_from",
        type=flags.typed(flags.number(int, 31, 150)),
        default=OLD_FROM,
        help=f"years from which a person trains as old (default: {OLD_FROM})",
    )
    add(
        "--drop_ages",
        type=flags.typed(flags.number(int, 0, 149)),
        nargs="+",
        metavar="YEARS",
        help="people of these ages train no model that predicts age (default: none)",
    )
    add(
        "--pseudo",
        metavar="CSV",
        help="output_probs_by_fold.csv of inference.py --save_probs: photos of eval that it is "
        "sure of train with its answers, in each fold those of models that never saw its people; "
        "or output_probs.csv, whose models hand on a little of their labels (default: none)",
    )
    add(
        "--pseudo_min",
        type=flags.typed(flags.number(float, 0, 1)),
        default=0.9,
        help="least probability of such an answer, for each head of the model (default: 0.9)",
    )
    add(
        "--eval_dir",
        default=os.environ.get("SM_CHANNEL_EVAL", "data/eval"),
        help="folder with info.csv, for --pseudo (default: $SM_CHANNEL_EVAL or data/eval)",
    )


def _run_flags(parser):
    group = parser.add_argument_group("run")
    add = group.add_argument
    add("--name", default="exp", help="name of the run; exp2, exp3 ... follow (default: exp)")
    add(
        "--model_dir",
        default=os.environ.get("SM_MODEL_DIR", "runs"),
        help="folder of the runs (default: $SM_MODEL_DIR or runs)",
    )
    add(
        "--resume",
        default=None,
        metavar="RUN",
        help="go on with this run, by its own options (default: a new run)",
    )
    add("--device", default="auto", help="auto|cpu|cuda|cuda:1 ... (default: auto)")
    add(
        "--log_interval",
        type=flags.typed(flags.number(int, 1)),
        default=20,
        help="steps between two looks at the loss (default: 20)",
    )
    add(
        "--valid_batch_size",
        type=flags.typed(flags.number(int, 1)),
        default=256,
        help="batch size of validation (default: 256)",
    )


def _layout_flags(parser):
    group = parser.add_argument_group("layout (default: one model of the 18 classes)")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--split_heads", action="store_true", help="three models: mask, gender and age"
    )
    either.add_argument(
        "--shared_backbone", action="store_true", help="one backbone with three heads"
    )


def _model_flags(parser):
    group = parser.add_argument_group("model and loss (each may be overridden by attribute)")
    add = flags.adder(group)
    add("--model", "tf_efficientnet_lite0", check_name, "backbone, any timm name")
    add(
        "--weights",
        "auto",
        weights,
        "auto (weights/<model>.safetensors, else timm's download), none (random) or a file",
    )
    add("--drop_rate", 0.0, flags.number(float, 0, 0.95), "dropout before the head")
    add("--drop_path", 0.0, flags.number(float, 0, 0.95), "stochastic depth")
    add(
        "--freeze",
        0,
        stages,
        "the first N stages of the backbone do not learn, the stem being the first; all: none of "
        "it learns, its outputs are computed once, and photos are not augmented",
    )
    add(
        "--age_mse",
        0.0,
        flags.number(float, 0),
        "weight of a squared error of the age in years (over 12) in models that predict the age",
        bare=0.3,
    )
    add(
        "--age_given",
        "none",
        flags.one_of("none", "mask"),
        "mask: with --split_heads the age model depends on the mask state, which the mask model "
        "predicts",
    )
    add(
        "--criterion",
        "cross_entropy",
        criterion,
        "cross_entropy, focal, f1, or a sum such as f1*0.4+focal*0.6",
    )
    add("--label_smoothing", 0.0, flags.number(float, 0, 0.95), "share of the target spread evenly")
    add(
        "--class_weights",
        0.0,
        flags.number(float, 0),
        "weigh the loss by (class frequency)^-POWER; without a value 1",
        bare=1.0,
    )


def _optimisation_flags(parser):
    add = flags.adder(parser.add_argument_group("optimisation (likewise)"))
    add("--epochs", 8, flags.number(int, 1), "epochs")
    add("--batch_size", 32, flags.number(int, 1), "images a step, over all processes")
    add("--accumulate", 1, flags.number(int, 1), "batches an optimizer step")
    add("--optimizer", "adamw", optimizer, "any name of timm's factory")
    add("--lr", 1e-3, flags.number(float, 0, above=True), "highest learning rate")
    add("--weight_decay", 0.05, flags.number(float, 0), "weight decay")
    add(
        "--layer_decay",
        1.0,
        flags.number(float, 0, 1, above=True),
        "learning rate of a layer as a share of that of the layer above it",
        bare=0.75,
    )
    add("--scheduler", "cosine", flags.one_of(*SCHEDULERS), "|".join(SCHEDULERS))
    add("--warmup_epochs", 1.0, flags.number(float, 0), "epochs of linear warm-up")
    add("--lr_decay_step", 20, flags.number(int, 1), "epochs a step of the scheduler step")
    add("--lr_patience", 3, flags.number(int, 1), "epochs without progress before plateau acts")
    add("--lr_decay", 0.5, flags.number(float, 0, 1, above=True), "factor of step and plateau")
    add(
        "--clip_grad",
        0.0,
        flags.number(float, 0),
        "largest norm of the gradient, 0 is off",
        bare=1.0,
    )
    add(
        "--ema",
        0.0,
        flags.number(float, 0, 0.99999),
        "decay of averaged weights, which are then the ones evaluated and kept; 0 is off",
        bare=0.99,
    )
    add(
        "--keep",
        "best",
        flags.one_of("best", "last"),
        "epoch of which the model is kept and scored: best by its macro F1 on the people held out, "
        "which flatters the score a little, or last, which chooses nothing",
    )
    add(
        "--average",
        0,
        flags.number(int, 0),
        "the mean of the weights of so many best epochs is kept where it scores above each; 0 is "
        "off",
        bare=3,
    )
    add(
        "--early_stop",
        0,
        flags.number(int, 0),
        "stop after so many epochs without a better macro F1 of the task, 0 is off",
        bare=5,
    )


def _speed_flags(parser):
    add = flags.adder(parser.add_argument_group("speed (likewise)"))
    add(
        "--amp",
        "auto",
        flags.one_of("auto", "off", "bf16", "fp16"),
        "auto|off|bf16|fp16; auto is off on a CPU, bf16 on a GPU that has it, else fp16",
    )
    add("--compile", False, flags.switch, "torch.compile", bare=True)
    add("--channels_last", True, flags.switch, "memory layout on|off", bare=True)
