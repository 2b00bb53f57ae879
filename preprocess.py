"""Removes backgrounds: writes one matte a photo and method; the photos stay as they are.

python preprocess.py --data_dir data/train --bg grabcut rembg rembg_grabcut
"""

import re
from pathlib import Path

from common.errors import UserError, run_command
from common.flags import Option, make_parser, number, one_of
from common.imports import quick_imports
from common.processes import rank, say
from photos.views import METHODS


def device_name(word):
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", word):
        raise UserError(f"{word!r}: give auto, cpu, cuda or cuda:N")
    return word


FLAGS = {
    "data": [
        Option("data_dir", Path("data/train"), Path,
               "train or eval folder of the competition, or any folder of photos"),
        Option("matte_dir", None, Path, "where to write", unset="mattes/ beside the images"),
        Option("limit", None, number(int, 1), "only the first N photos", unset="all"),
        Option("overwrite", False, None, "make all mattes again, those that are there too"),
        Option("on_error", "stop", one_of("stop", "skip"),
               "stop|skip: stop at an unreadable photo, or leave it out and count it"),
    ],
    "method": [
        Option("bg", ["rembg_grabcut"], one_of(*METHODS), "one or more of " + "|".join(METHODS),
               count="+"),
        Option("rembg_model", "u2netp", str, "network of rembg: a name or an .onnx file"),
    ],
    "speed": [
        Option("device", "auto", device_name, "of the network: auto|cpu|cuda|cuda:1 ..."),
        Option("workers", None, number(int, 1), "threads", unset="one a core"),
    ],
    "score": [
        Option("score", None, Path,
               "folder of true masks, named as the photos but .png: prints IoU and boundary F"),
    ],
}  # fmt: skip


def parse_args(argv=None):
    return make_parser(FLAGS, __doc__).parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    with quick_imports(compiles=False):
        import torch

        from background import matte, review
        from common import devices
        from common.files import check_writable
        from dataset import find_images
        from photos.reading import default_matte_dir

    root, names = find_images(args.data_dir)
    names = names[: args.limit]
    methods = list(dict.fromkeys(args.bg))
    matte_dir = args.matte_dir or default_matte_dir(root)
    check_writable("--matte_dir", matte_dir)
    truths = review.find_truths(args.score, names) if args.score else None
    matting = matte.Matting(
        matte_dir, args.rembg_model, args.device, args.on_error, args.workers, args.overwrite
    )
    with devices.process_group(torch.device("cpu")):  # of torchrun: each process makes its share
        for method in methods:
            matte.ensure(root, names, method, matting)
        devices.barrier()
    if rank() > 0:
        return
    review.preview(root, names, methods, matte_dir)
    if truths:
        say("method           photos        IoU     median  5th perc. boundary F")
        for method in methods:
            say(review.score_line(method, root, truths, matte_dir))


if __name__ == "__main__":
    run_command(main)
