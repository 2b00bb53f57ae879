"""Removes backgrounds: writes one matte a photo and method; the photos stay as they are.

python preprocess.py --data_dir data/train --bg grabcut rembg rembg_grabcut
"""

import argparse
from contextlib import contextmanager, nullcontext
from pathlib import Path

from background import matte
from background.review import find_truths, preview, score_line
from common import flags
from common.errors import run_command
from common.processes import rank, say, world_size
from dataset import find_images
from photos.reading import default_matte_dir


def parse_args(argv=None):
    parser = flags.Parser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data_dir",
        type=Path,
        default=Path("data/train"),
        help="train or eval folder of the competition, or any folder of photos",
    )
    data.add_argument(
        "--matte_dir", type=Path, help="where to write (default: mattes/ beside the images folder)"
    )
    data.add_argument("--limit", type=int, help="only the first N photos (default: all)")
    data.add_argument(
        "--overwrite", action="store_true", help="make anew what is there (default: keep it)"
    )
    data.add_argument(
        "--on_error", choices=("stop", "skip"), default="stop", help="at a broken photo"
    )
    method = parser.add_argument_group("method")
    method.add_argument(
        "--bg",
        nargs="+",
        default=["rembg_grabcut"],
        metavar="METHOD",
        help=f"one or more of {' '.join(matte.METHODS)}",
    )
    method.add_argument(
        "--rembg_model", default="u2netp", help="a model of rembg by name, or an .onnx file"
    )
    speed = parser.add_argument_group("speed")
    speed.add_argument("--device", default="auto", help="auto, cpu or cuda, for the network")
    speed.add_argument("--workers", type=int, help="threads (default: one a core)")
    score = parser.add_argument_group("score")
    score.add_argument(
        "--score",
        type=Path,
        metavar="MASKS_DIR",
        help="true masks, named as the photos but .png: prints IoU and boundary F (default: none)",
    )
    args = parser.parse_args(argv)
    for flag in ("limit", "workers"):
        if getattr(args, flag) is not None and getattr(args, flag) < 1:
            parser.error(f"--{flag} must be at least 1")
    if args.device not in ("auto", "cpu") and args.device.partition(":")[0] != "cuda":
        parser.error(f"--device {args.device}: give auto, cpu or cuda")
    unknown = [name for name in args.bg if name not in matte.METHODS]
    if unknown:
        parser.error(f"--bg {unknown[0]}: is none of {' '.join(matte.METHODS)}")
    return args


def main(argv=None):
    args = parse_args(argv)
    root, names = find_images(args.data_dir)
    names = names[: args.limit]
    matte_dir = args.matte_dir or default_matte_dir(root)
    truths = find_truths(args.score, names) if args.score else None
    with nullcontext() if world_size() == 1 else waiting_at_the_end():
        make(args, root, names, matte_dir)
    if rank() == 0:
        preview(root, names, args.bg, matte_dir)
    if truths:
        say("method           photos        IoU     median  5th perc. boundary F")
        for method in dict.fromkeys(args.bg):
            say(score_line(method, truths, matte_dir))


@contextmanager
def waiting_at_the_end():
    """Under torchrun: leaves the block once all processes are at its end."""
    from common import devices  # imports torch, which one process does without

    with devices.process_group(devices.pick_device("cpu")):
        yield
        devices.barrier()


def make(args, root, names, matte_dir):
    matting = matte.Matting(
        matte_dir, args.rembg_model, args.device, args.on_error, args.workers, args.overwrite
    )
    for method in dict.fromkeys(args.bg):
        matte.ensure(root, names, method, matting)


if __name__ == "__main__":
    run_command(main)
