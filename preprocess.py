"""Removes backgrounds: writes one matte a photo and method; the photos stay as they are.

python preprocess.py --data_dir data/train --bg grabcut rembg rembg_grabcut
"""

import argparse
from contextlib import contextmanager, nullcontext
from pathlib import Path

import cv2
import numpy as np

import flags
import matte
from common import UserError, atomic, progress, rank, run, say, world_size
from dataset import default_matte_dir, find_images, matte_path, read_photo

PEOPLE = 12  # in the preview
CELL = 192  # height of a photo there
GREY = 128
TOLERANCE = 0.0075  # of the diagonal: how far apart two boundaries may be and still agree


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
    import distributed  # imports torch, which one process does without

    with distributed.process_group(distributed.pick_device("cpu")):
        yield
        distributed.barrier()


def make(args, root, names, matte_dir):
    for method in dict.fromkeys(args.bg):
        matte.ensure(
            root,
            names,
            method,
            matte_dir,
            rembg_model=args.rembg_model,
            device=args.device,
            on_error=args.on_error,
            workers=args.workers,
            overwrite=args.overwrite,
        )


def preview(root, names, methods, matte_dir):
    """Writes preview.png: PEOPLE people, each as the photo and what each method leaves of it."""
    people = {}
    for name in names:  # the first photo of each folder, or every photo where there are no folders
        people.setdefault(name.rpartition("/")[0] or name, name)
    people = list(people.values()) if len(people) > 1 else names
    picks = np.unique(np.linspace(0, len(people) - 1, PEOPLE).astype(int))
    rows = []
    for pick in picks:
        paths = [matte_path(matte_dir, method, people[pick]) for method in methods]
        if not all(path.exists() for path in paths):  # another rank's, or a broken photo
            continue
        photo = read_photo(root / people[pick])
        width = max(1, round(photo.shape[1] * CELL / photo.shape[0]))
        views = [photo]
        for path in paths:
            alpha = read_mask(path)[..., None] / 255
            views.append(np.uint8(photo * alpha + GREY * (1 - alpha)))
        views = [cv2.resize(v, (width, CELL), interpolation=cv2.INTER_AREA) for v in views]
        for view, label in zip(views, ("photo", *methods), strict=True):
            view[:20] //= 2  # a dark strip behind the label
            cv2.putText(view, label, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255,) * 3, 1)
        rows.append(np.hstack(views))
    if not rows:
        return
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    rows += [np.zeros_like(rows[0])] * (len(rows) % 2 if len(rows) > 1 else 0)
    columns = 2 if len(rows) > 1 else 1
    picture = np.vstack([np.hstack(rows[i : i + columns]) for i in range(0, len(rows), columns)])
    path = Path(matte_dir, "preview.png")
    with atomic(path) as temporary:
        cv2.imencode(".png", picture[..., ::-1])[1].tofile(temporary)
    say(f"look first at {path}")


def read_mask(path):
    """A mask file as uint8 (H, W); UserError if it is no image."""
    mask = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise UserError(f"{path}: is no readable image")
    return mask


def find_truths(folder, names):
    """{photo: file of its true mask} of the photos that have one; UserError if none has."""
    truths = {name: folder / Path(name).with_suffix(".png") for name in names}
    truths = {name: path for name, path in truths.items() if path.is_file()}
    if not truths:
        first = Path(names[0]).with_suffix(".png")
        raise UserError(f"--score {folder}: has no mask of any photo, for instance {first}")
    return truths


def score_line(method, truths, matte_dir):
    """One row of the table of scores: how near a method's mattes are to the true masks."""
    ious, boundaries = [], []
    for name, path in progress(truths.items(), desc=f"score {method}"):
        made = matte_path(matte_dir, method, name)
        if not made.exists():  # a broken photo that was skipped
            continue
        made, truth = read_mask(made) >= 128, read_mask(path) >= 128
        if made.shape != truth.shape:
            raise UserError(f"{path}: is {truth.shape}, but its photo {made.shape} (H, W)")
        ious.append(iou(made, truth))
        boundaries.append(boundary_f(made, truth))
    if not ious:
        return f"{method:16} none"
    columns = np.mean(ious), np.median(ious), np.percentile(ious, 5), np.mean(boundaries)
    return f"{method:16} {len(ious):6} " + "".join(f"{value:11.3f}" for value in columns)


def iou(made, truth):
    """Intersection over union of two bool arrays (H, W); 1 if both are empty."""
    union = (made | truth).sum()
    return float((made & truth).sum() / union) if union else 1.0


def boundary_f(made, truth):
    """F-score of the boundary pixels of two bool arrays (H, W), within TOLERANCE.

    A boundary pixel counts as right if the other mask has one within that distance (Csurka et
    al., BMVC 2013; Perazzi et al., CVPR 2016). 1 if neither has a boundary, 0 if only one has.
    """
    reach = max(1, round(TOLERANCE * np.hypot(*made.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    edges = [boundary(mask) for mask in (made, truth)]
    if not all(edge.any() for edge in edges):
        return float(not any(edge.any() for edge in edges))
    near = [cv2.dilate(edge, disc) for edge in edges]
    precision = near[1][edges[0] > 0].mean()
    recall = near[0][edges[1] > 0].mean()
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def boundary(mask):
    """The pixels of a mask that touch its outside; the border of the picture is no outside."""
    mask = mask.astype(np.uint8)
    return mask - cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)


if __name__ == "__main__":
    run(main)
