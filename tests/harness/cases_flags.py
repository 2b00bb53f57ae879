"""Flags of every command, a case a line: the command line is the case's name."""

import re

from harness.case import Case
from harness.engine import diverged, error, error_or_works, works
from harness.folder import mkdir, write

CASES = []


def add(command, argv, expected, prepare=None, **more):
    CASES.append(Case(f"{command} {argv}", "flags", command, argv, prepare, expected, **more))


def about(argv):
    """What an error about this command line must hold: a flag, or a value that is no number."""
    words = [word.strip(",'") for word in argv.split()]
    return "|".join(re.escape(word) for word in words if len(word) > 2 or word.startswith("--"))


# ---- flags that work

for argv in (
    "", "--split_heads", "--shared_backbone", "--k_fold 2 --fold 1", "--val_ratio 0",
    "--bg grabcut", "--bg none+grabcut --bg_fill random", "--bg grabcut --crop person",
    "--crop center",
    "--mixup", "--cutmix", "--cutmix_half", "--weighted_sampler", "--ema",
    "--early_stop --epochs 2", "--keep last", "--criterion f1*0.4+focal*0.6", "--optimizer sgd",
    "--scheduler step --epochs 2 --lr_decay_step 1", "--scheduler plateau", "--scheduler none",
    "--age_mse", "--drop_ages 30", "--old_from 58", "--batch_size 1000", "--accumulate 3",
    "--amp bf16", "--lr 1e-30", "--name 사람", "--name 'a b'", "--seed 0", "--clip_grad",
    "--warmup_epochs 9",
    "--split_heads --lr 1e-3 age=1e-4 --resize 32 24 age=40,30", "--data_dir data/train/images",
    "--label_smoothing 0.1 --class_weights",
    "--shared_backbone --age_mse --class_weights 0 age=0.5", "--split_heads --age_mse --mixup",
):  # fmt: skip
    add("train", argv, works())
for argv in (
    "", "--tta flip", "--tta both", "--vote", "--save_probs", "--oof runs/oof",
    "--oof runs/oof --tta flip", "--model_dir runs/joint runs/joint2 --ensemble_weights 2 1",
    "--images data/eval/images", "--model_dir runs/split", "--model_dir runs/all",
    "--batch_size 1", "--model_dir runs/joint runs/split runs/all", "--output_dir a/b/c",
    "--oof runs/oof --decision prior --vote", "--decision prior",
):  # fmt: skip
    add("inference", argv, works())
for argv in ("", "--overwrite", "--bg grabcut grabcut", "--data_dir data/eval", "--matte_dir a/b",
             "--data_dir data/eval/images", "--limit 99999 --workers 2"):  # fmt: skip
    add("preprocess", argv, works())
for argv in ("", "--model_dir runs/joint", "--model_dir runs/joint runs/joint2",
             "--model_dir runs/joint,runs/joint2", "--model_dir runs/joint --cam_images 1",
             "--out a/b/page.html"):  # fmt: skip
    add("report", argv, works("report.html|page.html"))
for argv in ("", "--pruner none", "--study other --seed 5", "--trials 2 -- --k_fold 2"):
    add("tune", argv, works("best"))
add("demo", "--out new", works("drew"))
add("demo", "--out new --label_noise 0.5 --background_bias 1", works("drew"))
for command in ("train", "inference", "preprocess", "report", "tune", "demo"):
    never = r"\(default: None\)|\(None:|default: .*\(default:"
    add(command, "--help", works("usage", never=never), bare=True)

# ---- flags of training that are wrong: the line names the flag, and its value where there is one

WRONG = """
--epochs 0 | --epochs x | --epochs 1.5 | --epochs -1 | --batch_size 0 | --batch_size -3 | --lr 0
--lr -1 | --lr nan | --lr inf | --lr abc | --weight_decay -1 | --weight_decay nan | --k_fold 1
--k_fold 25 | --k_fold -1 | --val_ratio 1 | --val_ratio nan | --val_ratio 0.01 | --seed -1
--seed 1e3 | --device mps | --device meta | --device cuda
--device cuda:99 | --device tpu | --device xla:0 | --name ../../x | --name /var/x | --name .
--name .. | --name '' | --resize 32 | --resize 4 4 | --resize 32 24 16 | --resize x y
--model nosuch | --model '' | --optimizer nosuch | --scheduler nosuch | --criterion nosuch
--criterion focal*0 | --criterion f1*nan | --bg nosuch | --bg none+none | --bg rembg+
--bg_fill nosuch | --crop nosuch | --augmentation nosuch | --mixup -1 | --cutmix nan
--mixup --cutmix | --weighted_sampler -1 | --weights nosuch.safetensors | --weights space.json
--drop_rate 1 | --drop_path 2 | --age_head dldl | --workers 0 | --workers x
--age_mse -1 | --age_given mask | --label_smoothing 1 | --class_weights -1
--accumulate 0 | --warmup_epochs -1 | --lr_decay_step 0
--lr_patience 0 | --lr_decay 0 | --clip_grad -1 | --ema 1 | --keep first | --keep last --early_stop
--average 3 | --early_stop -1 | --amp x | --compile maybe | --channels_last 3
--split_heads --shared_backbone | --nosuch | --data_dir nosuch | --data_dir space.json
--data_dir data/eval | --data_dir '' | --label_fixes nosuch.csv | --label_fixes data
--old_from 10 | --drop_ages 200
--fold 5 --k_fold 2 | --fold -1 | --on_error maybe | --log_interval 0 | --valid_batch_size 0
--progressive | --rembg_model nosuch --bg rembg | --model_dir space.json | --cache_dir space.json
--model_dir /proc/x | --cache_dir /proc/x | --matte_dir space.json --bg grabcut
--lr_decay nan | --ema nan | --drop_rate nan | --label_fixes_level some | --fold x --k_fold 2
--mixup inf | --criterion '' | --criterion focal+ | --bg ''
"""
for argv in WRONG.replace("\n", "|").split("|"):
    if argv := argv.strip():
        add("train", argv, error(about(argv)))
add("train", "--epoch 3", error("--epochs"))
add("train", "--folds 3", error("--k_fold"))
add("train", "surplus", error("surplus"))
add("train", "--lr 1e-3 age=1e-4", error("--lr", "age", "--split_heads"))
add("train", "--split_heads --lr age=x", error("--lr", "age", "'x'"))
add("train", "--split_heads --resize 32 24 age=1", error("--resize", "age"))
add("train", "--split_heads --lr color=1", error("--lr", "color"))
add("train", "--resume nosuch", error("nosuch"))
add("train", "--resume runs", error("runs", "not a run"))
add("train", "--resume data", error("data", "not a run"))
add("train", "--resume space.json", error("space.json"))
add("train", "--resume", error("--resume"))
add("train", "--resume runs/half --lr 1", error("--lr", "leave it out"))
add("train", "--resume runs/half --fold 7", error("--fold 7"))
add("train", "--resume runs/joint", works("finished"))
add("train", "--lr 1e6 --epochs 2", diverged("nan|finite|diverged", "--lr"))
add("train", "--lr 1e30", diverged("nan|finite|diverged", "--lr"))
add("train", "--lr 1e6 --split_heads --epochs 2", diverged("nan|finite|diverged", "--lr"))
add("train", "--lr 1e6 --keep last --epochs 2", diverged("nan|finite|diverged", "--lr"))
add("train", "--seed 99999999999999999999999999", error_or_works("--seed"))
add("train", "--batch_size 1", error_or_works("batch_size"))
add("train", "--batch_size 4 --k_fold 24 --fold 0", works())

# ---- of the other commands

WRONG = {
    "inference": """
--ensemble_weights nan | --ensemble_weights inf | --ensemble_weights -1 | --ensemble_weights 0
--ensemble_weights x | --ensemble_weights 1 2 | --model_dir runs/joint runs/joint2 ENSEMBLE inf 1
--model_dir runs/joint runs/joint2 ENSEMBLE nan 1 | --model_dir runs/joint runs/joint2 ENSEMBLE 1 0
--tta x | --model_dir nosuch | --model_dir runs/half | --model_dir runs | --model_dir data
--model_dir space.json | --data_dir nosuch | --data_dir data/train
--output_dir space.json | --output_dir /proc/x | --oof runs/joint | --oof data/train
--oof space.json | --oof x --images data/eval/images | --oof x --save_probs | --decision x
--oof /proc/x | --batch_size 0 | --batch_size x | --device mps | --device meta | --device cuda
--device x | --oof x --train_dir nosuch | --cache_dir space.json
--cache_dir /proc/x | --matte_dir space.json --model_dir runs/split | --on_error x | --nosuch
""",
    "preprocess": """
--limit 0 | --limit -1 | --limit x | --workers 0 | --bg nosuch | --bg none | --device mps
--device meta | --device x | --data_dir nosuch | --data_dir space.json | --matte_dir space.json
--matte_dir /proc/x | --score nosuch | --score runs | --rembg_model nosuch --bg rembg | --nosuch
--rembg_model space.json --bg rembg | --on_error x | --data_dir runs | --score space.json
""",
    "report": """
--model_dir nosuch | --model_dir runs/half | --model_dir runs/all | --model_dir runs
--model_dir data
--model_dir runs/joint runs/split | --model_dir runs/joint --baseline runs/split | --cam_images -1
--baseline x | --cam_images x | --out runs | --out /proc/x.html | --out space.json/x.html
--data_dir nosuch | --data_dir data/eval | --data_dir space.json | --model_dir , | --nosuch
--seed x | --seed -1
--out ''
""",
    "tune": """
--trials 0 | --trials -1 | --trials x | --study ../x | --study '' | --study . | --study a/b
--storage nosuch | --storage nosuch://x | --storage sqlite:////proc/x.db | --space nosuch.json
--space data | --pruner x | --seed -1 | --nosuch | --storage sqlite:///space.json
""",
    "demo": """
--people 23 | --people x | --people -1 | --eval_people 0 | --size 31 32 | --size 3000 32
--size 32 | --seed -1 | --seed x | --label_noise 2 | --label_noise nan | --label_noise -1
--background_bias nan | --out space.json | --out data | --out runs | --out /proc/x | --nosuch
--out space.json/x
""",
}
for command, block in WRONG.items():
    for argv in block.replace("\n", "|").split("|"):
        if argv := argv.strip().replace("ENSEMBLE", "--ensemble_weights"):
            add(command, argv, error(about(argv)))
add("inference", "--images nosuch", error("--images", never="--data_dir"))
add("inference", "--images space.json", error("space.json", never="--data_dir"))
add("inference", "--images empty", error("empty", never="--data_dir"), mkdir("empty"))
add("inference", "--oof x --decision prior --model_dir runs/split", error("--k_fold"))
add("inference", "--model_dir runs/all --oof x", error("runs/all"))
add("inference", "--model_dir runs/oof --oof x", error("runs/oof"))
for argv in ("runs/joint,runs/split", "runs/joint,runs/joint", "runs/joint,runs/joint2,runs/joint"):
    add("report", f"--model_dir {argv}", error("seeds? of one configuration|twice|differ|same"))
add("report", "--model_dir runs/joint,", error_or_works("runs/joint,"))
add("report", "--model_dir runs/joint runs/joint", error_or_works("runs/joint"))
add("tune", "-- --name x", error("--name"))
add("tune", "-- --resume x", error("--resume"))
add("tune", "-- --fold 0", error("--fold"))
add("tune", "-- --val_ratio 0", error("--val_ratio"))
add("tune", "-- --nosuch", error("--nosuch"))
add("tune", "-- --lr 1", error("lr"))
add("tune", "-- --data_dir nosuch", error("nosuch"))
add("tune", "-- --device mps", error("--device"))
add("tune", "-- --model nosuch", error("nosuch"))
add("preprocess", "--bg rembg --rembg_model x.onnx", error("x.onnx"), write("x.onnx", b"\x08\x07x"))
add("preprocess", "--data_dir empty", error("empty"), mkdir("empty"))
