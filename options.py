"""Every flag of training, one row each, and what the flags mean for a model.

`--lr 3e-4 age=1e-4` gives 3e-4 to every model and 1e-4 to the age model of a --split_heads run.
Parsed it is {"": 3e-4, "age": 1e-4}; tasks_of() resolves it for each model. The parser, --help,
config.json and the search space come from the table. This file imports neither torch nor timm, so
that a wrong flag is answered at once; whether timm has a model is checked later (training/run.py).
"""

import re
from functools import partial
from pathlib import Path

from common import flags, schema
from common.errors import UserError
from common.flags import ABOVE_0, Option, folder_name, one_of, switch, switch_or, weighted_sum
from labels import ATTRIBUTES, LAYOUTS, OLD_FROM
from photos.views import CROPS, FILLS, METHODS

STRENGTHS = ("none", "light", "strong")  # of augment.py
MIXES = ("mixup", "cutmix", "cutmix_half")  # of augment.py
CRITERIA = ("cross_entropy", "focal", "f1")  # of loss.py
SCHEDULERS = ("cosine", "step", "plateau", "none")
# Options that a head has, not a model: with a shared backbone they too may differ by attribute.
PER_HEAD = ("criterion", "label_smoothing", "class_weights")
LAYOUT_FLAGS = ("split_heads", "shared_backbone")  # two flags of one choice


def background(word):
    """--bg: methods joined by +, each once."""
    methods = word.split("+")
    for method in methods:
        one_of("none", *METHODS)(method)
    if len(set(methods)) < len(methods):
        raise UserError(f"{word!r} names a view twice")
    return word


def criterion(word):
    """--criterion: a name, or a sum such as f1*0.4+focal*0.6."""
    weighted_sum(CRITERIA)(word)
    return word


whole, real = partial(flags.number, int), partial(flags.number, float)
Each = partial(Option, by_attribute=True)  # may be overridden by attribute
Where = partial(Option, runtime=True)  # says where and how, not what is learned

OPTIONS = {
    "data": (
        Where("data_dir", "data/train", str, "folder with train.csv, or its images folder",
              env="SM_CHANNEL_TRAIN"),
        Option("k_fold", 0, whole(0), "folds, to validate everybody once; 0 is one hold-out"),
        Where("fold", None, whole(0), "only these folds of the run --name", count="+", unset="all"),
        Option("val_ratio", 0.2, real(0, 0.99), "share of people held out; 0 trains on everybody"),
        Option("seed", 42, whole(0), "of the split and of training"),
        Where("on_error", "stop", one_of("stop", "skip"),
              "stop|skip: stop at an unreadable photo, or leave it out and count it"),
        Where("cache_dir", "cache", str, "folder of the decoded photos"),
        Where("matte_dir", None, str, "folder of the mattes (foreground masks), made where missing",
              unset="mattes/ beside the images"),
        Option("rembg_model", "u2netp", str, "network of rembg: a name or an .onnx file"),
    ),
    "labels of training (act on training rows only)": (
        Option("label_fixes", None, str, "csv of fixes: id, field, from, to, confidence, note"),
        Option("label_fixes_level", "sure", one_of("sure", "all"), "sure|all: which fixes act"),
        Option("old_from", OLD_FROM, whole(31, 150), "age from which a person trains as old"),
        Option("drop_ages", None, whole(0, 149), "people of these ages train no model of age",
               count="+"),
    ),
    "run": (
        Where("name", "exp", folder_name, "name of the run; exp2, exp3 ... follow"),
        Where("model_dir", "runs", str, "folder of the runs", env="SM_MODEL_DIR"),
        Where("resume", None, str, "go on with this run, by its own options", unset="a new run"),
        Where("from_run", None, str, "train with the options and data of this run; flags beside it "
              "change some"),
        Where("config", None, str, "a YAML file of flags, one a line, such as `lr: 3e-4 "
              "age=1e-4`; flags of the command line win"),
        Where("wandb", None, str, "project of Weights & Biases that gets the curves too, where "
              "wandb is installed"),
        Option("init_from", None, str, "start from the weights of this run, fold by fold"),
        Where("dry_run", False, None, "say all problems, try a batch of each model, tell the cost, "
              "write dry_run.png; make no run"),
        Where("workers", 1, whole(1), "folds that train side by side, each in a process with its "
              "share of the cores, on the GPUs in turn; or models of --split_heads"),
        Where("device", "auto", str, "auto|cpu|cuda|cuda:1|mps ..."),
        Where("deterministic", False, None, "on a GPU, use only kernels that give the same bytes "
              "each time, which may be slower; a warning where torch has none"),
        Where("log_interval", 20, whole(1), "steps between two checks of the loss"),
        Where("valid_batch_size", 256, whole(1), "batch size of validation, on a CPU at most 32"),
    ),
    "layout (default: one model of the 18 classes)": (
        Option("split_heads", False, None, "three models: mask, gender and age"),
        Option("shared_backbone", False, None, "one backbone with three heads"),
    ),
    "what a model sees (each may be overridden by attribute)": (
        Each("bg", "none", background, f"view: none|{'|'.join(METHODS)}, or some joined by +"),
        Each("bg_fill", "mean", one_of(*FILLS), "in place of the background: black|mean|blur|"
             "random (another photo's background each time, in training only)"),
        Each("crop", "none", one_of(*CROPS), "none|center|face (closer than center)|person (head "
             "and shoulders)"),
        Each("resize", [128, 96], whole(8, 4096), "height and width in pixels", count=2),
        Each("augmentation", "light", one_of(*STRENGTHS), "|".join(STRENGTHS)),
        Each("mixup", 0.0, real(0), "Beta parameter of mixup, 0 is off", bare=0.2),
        Each("cutmix", 0.0, real(0), "Beta parameter of CutMix, 0 is off", bare=1.0),
        Each("cutmix_half", False, switch, "on|off: CutMix of vertical halves", bare=True),
        Each("weighted_sampler", 0.0, real(0), "draw photos by (class frequency)^-V; for "
             "several heads the 18 classes count", bare=1.0),
    ),
    "model and loss (each may be overridden by attribute)": (
        Each("model", "tf_efficientnet_lite0", str, "backbone, any name of timm"),
        Each("weights", "auto", str, "auto (weights/<model>.safetensors or timm's), none, a file"),
        Each("drop_rate", 0.0, real(0, 0.95), "rate of dropout before the head"),
        Each("drop_path", 0.0, real(0, 0.95), "rate of stochastic depth, 0 is off"),
        Each("age_mse", 0.0, real(0), "weight of a squared error of the age / 12 years", bare=0.3),
        Each("criterion", "cross_entropy", criterion,
             "|".join(CRITERIA) + ", or a sum such as f1*0.4+focal*0.6"),
        Each("label_smoothing", 0.0, real(0, 0.95), "share of the target spread evenly"),
        Each("class_weights", 0.0, real(0), "weigh the loss by (class frequency)^-V, "
             "as in the table; with --weighted_sampler rare classes count twice", bare=1.0),
    ),
    "optimization (each may be overridden by attribute)": (
        Each("epochs", 8, whole(1), "passes over the training photos"),
        Each("batch_size", 32, whole(1), "photos a step, over all processes"),
        Each("accumulate", 1, whole(1), "batches an optimizer step"),
        Each("optimizer", "adamw", str.lower, "any optimizer of timm, such as adamw, sgd, lion"),
        Each("lr", 1e-3, real(ABOVE_0), "highest learning rate"),
        Each("weight_decay", 0.05, real(0), "strength of weight decay, 0 is off"),
        Each("scheduler", "cosine", one_of(*SCHEDULERS), "|".join(SCHEDULERS)),
        Each("warmup_epochs", 1.0, real(0), "epochs of linear warm-up, at most half of all"),
        Each("lr_decay_step", 20, whole(1), "step: epochs between two decays"),
        Each("lr_patience", 3, whole(1), "plateau: epochs without a better score before a decay"),
        Each("lr_decay", 0.5, real(ABOVE_0, 1), "step, plateau: factor of a decay"),
        Each("clip_grad", 0.0, real(0), "largest norm of the gradient, 0 is off", bare=1.0),
        Each("ema", 0.0, real(0, 0.99999),
             "decay of averaged weights, which are then evaluated and kept; 0 is off", bare=0.99),
        Each("keep", "best", one_of("best", "last"), "the epoch that is kept: best by macro F1 on "
             "the validation people, which flatters the score a little, or last"),
        Each("early_stop", 0, whole(0), "stop after so many epochs without a better macro F1, 0 is "
             "off", bare=5),
    ),
    "speed (each may be overridden by attribute)": (
        Each("amp", "auto", one_of("auto", "off", "bf16", "fp16"),
             "auto|off|bf16|fp16; where a fold has 500 steps or more, auto tries a few of each and "
             "takes the fastest; else it is off on a CPU, bf16 on a GPU that has it, else fp16"),
        Each("compile", False, switch_or("auto", "graphs"),
             "auto|on|off|graphs: torch.compile, on a GPU perhaps with CUDA graphs; auto tries it "
             "where a fold takes ten minutes or more", bare=True),
        Each("channels_last", True, switch, "on|off: memory layout, channels last", bare=True),
    ),
}  # fmt: skip
ROWS = {row.name: row for rows in OPTIONS.values() for row in rows}
RUNTIME_FLAGS = frozenset(name for name, row in ROWS.items() if row.runtime)
BY_ATTRIBUTE = tuple(name for name, row in ROWS.items() if row.by_attribute)


def make_parser(description=None):
    """The parser of the flags of training."""
    return flags.make_parser(OPTIONS, description, ATTRIBUTES)


def parse_args(argv=None):
    """The options of a command line as a Namespace; UserError for flags that do not go together."""
    args = make_parser().parse_args(argv)
    check(args)
    return args


def is_dry_run(argv):
    """Whether --dry_run is on. Asked before the flags are parsed: it tells all that are wrong."""
    switched = re.findall(r" --dry_run([ =]off\b)?", " ".join(["", *argv]))
    return bool(switched) and not switched[-1]


def training_options(args):
    """{name: value} of what decides the outcome of a run; of a Namespace or of its dict.

    Places, devices and other RUNTIME_FLAGS are no part of it: a run whose data moved is the same.
    """
    values = args if isinstance(args, dict) else vars(args)
    return {name: value for name, value in values.items() if name not in RUNTIME_FLAGS}


def check_recorded(values, path):
    """UserError that names the option in a file whose value its flag does not take."""
    for name, value in values.items():
        if name in ROWS and not ROWS[name].takes(value, ATTRIBUTES):
            raise UserError(
                f"{path}: {schema.shown(value)} is no value of the option {name}; restore the file"
            )


def text_of(value):
    """A parsed value as it is typed: {"": 3e-4, "age": 1e-4} is `3e-4 age=1e-4`."""
    if isinstance(value, dict):
        parts = {name: text_of(item) for name, item in value.items()}
        return " ".join(f"{name}={text}" if name else text for name, text in parts.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(text_of, value))
    if isinstance(value, bool) or value is None:
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def layout_of(args):
    """ "joint", "split" or "shared"."""
    return "split" if args.split_heads else "shared" if args.shared_backbone else "joint"


def tasks_of(args):
    """{task: {option: value}} of the layout's models; options of PER_HEAD are {head: value}.

    Besides: heads, those of the model, and years, whether it predicts the age in years too.
    """
    tasks = {}
    for task, heads in LAYOUTS[layout_of(args)].items():
        values = {name: getattr(args, name) for name in BY_ATTRIBUTE}
        one = {name: value.get(task, value[""]) for name, value in values.items()}
        for name in PER_HEAD:
            one[name] = {head: values[name].get(head, values[name][""]) for head in heads}
        years = bool(one["age_mse"] and {"age", "label"} & {*heads})
        tasks[task] = {"heads": heads, "years": years} | one
    return tasks


def check(args):
    """UserError for flags that contradict each other."""
    for problem in problems(args):
        raise UserError(problem)


def problems(args):
    """Yields what contradicts in the flags, a line each."""
    if args.split_heads and args.shared_backbone:
        yield "--split_heads and --shared_backbone exclude each other: choose one"
    last = max(args.k_fold, 1) - 1
    if args.fold and max(args.fold) > last and not args.resume:
        yield f"--fold {max(args.fold)}: with --k_fold {args.k_fold} the last fold is {last}"
    layout = layout_of(args)
    for name in BY_ATTRIBUTE:
        named = [key for key in getattr(args, name) if key]
        if named and (layout == "joint" or (layout == "shared" and name not in PER_HEAD)):
            yield f"--{name} {named[0]}=...: only --split_heads trains a model of {named[0]}"
    for chosen in tasks_of(args).values():
        if not (args.k_fold or args.val_ratio):
            if chosen["early_stop"]:
                yield "--early_stop goes by people held out, --val_ratio 0 has none: leave one out"
            if chosen["scheduler"] == "plateau":
                yield "--scheduler plateau goes by people held out: give a --val_ratio or --k_fold"
        yield from _problems_of_task(chosen)


def _problems_of_task(options):
    weights, mixes = options["weights"], [name for name in MIXES if options[name]]
    if weights not in ("auto", "none") and not Path(weights).is_file():
        yield f"--weights {weights}: no such file; give a file, auto or none"
    if len(mixes) > 1:
        yield f"--{mixes[0]} and --{mixes[1]} exclude each other: choose one"
    if options["compile"] == "graphs" and options["accumulate"] > 1:
        yield "--compile graphs forgets the gradients of a batch: leave --accumulate out"
    if options["scheduler"] == "step" and options["lr_decay_step"] >= options["epochs"]:
        yield f"--scheduler step: give a --lr_decay_step below the {options['epochs']} epochs"
    if options["keep"] == "last" and options["early_stop"]:
        yield "--keep last chooses no epoch, --early_stop does: leave one out"
    for head, name in options["criterion"].items():
        softened = options["label_smoothing"][head] or options["class_weights"][head]
        if softened and {term for term, _ in weighted_sum(CRITERIA)(name)} == {"f1"}:
            yield (
                "--criterion f1 uses neither --label_smoothing nor --class_weights: leave them "
                "out, or add focal or cross_entropy"
            )
