"""Speeds of background removal as ratios, each of two things measured in turns in the same run.

rembg     photos/s of preprocess.py --bg rembg over the forward passes/s of the bare network
          with the best setting of threads: what reading, resizing and writing cost
grabcut   photos/s of --bg grabcut, and of one call, over a full-resolution loop of cv2.grabCut
          with a rectangle and five iterations, one thread each; their IoU where masks are given.
          One call each is timed by the thread's CPU time, which a busy machine hardly changes
remove    photos/s of a loop of rembg.remove(photo) without a session, for comparison
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from background import grabcut, matte, rembg_net
from background.review import find_truths, iou
from common import files, flags
from common.errors import run_command
from common.processes import cores
from dataset import find_images
from photos.reading import read_matte, read_photo


def parse_args(argv=None):
    parser = flags.Parser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, default=Path("data/train"), help="photos")
    parser.add_argument("--masks", type=Path, help="true masks, for the IoU (default: none)")
    parser.add_argument("--photos", type=int, default=64, help="photos a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median is reported")
    parser.add_argument("--no_remove", action="store_true", help="leave the remove() loop out")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    root, names = find_images(args.data_dir)
    picks = np.linspace(0, len(names) - 1, min(args.photos, len(names))).astype(int)
    names = [names[i] for i in sorted(set(picks))]
    cv2.setNumThreads(1)
    for line in (*rembg_lines(root, names, args.rounds), *grabcut_lines(root, names, args)):
        print(line, flush=True)
    if not args.no_remove:
        print(
            f"rembg.remove(photo), a new session each: {remove_rate(root, names[:4]):.2f} photos/s"
        )


def rembg_lines(root, names, rounds):
    """The ratio of the command's rate to the bare network's, for each setting of threads."""
    model = rembg_net.find_model("u2netp")
    settings = [(1, cores()), (cores(), 1)]  # sessions x threads
    rates = {key: [] for key in ("command", *settings)}
    for _ in range(rounds):
        for sessions, threads in settings:
            rates[sessions, threads].append(forward_rate(model, sessions, threads, len(names)))
        rates["command"].append(command_rate(root, names, "rembg"))
    best = [max(pair) for pair in zip(*(rates[key] for key in settings), strict=True)]
    ratios = np.divide(rates["command"], best)
    for sessions, threads in settings:
        rate = np.median(rates[sessions, threads])
        yield f"u2netp alone, {sessions} sessions x {threads} threads: {rate:.2f} passes/s"
    yield f"--bg rembg: {np.median(rates['command']):.2f} photos/s"
    yield f"rembg ratio: {np.median(ratios):.3f} (rounds: {' '.join(f'{r:.3f}' for r in ratios)})"


def forward_rate(model, sessions, threads, passes):
    """Forward passes a second of the bare network."""
    nets = [rembg_net.open_net(model, "cpu", threads).session for _ in range(sessions)]
    name = nets[0].get_inputs()[0].name
    x = np.random.default_rng(0).normal(size=(1, 3, 320, 320)).astype(np.float32)

    def work(net):
        for _ in range(passes // sessions):
            net.run(None, {name: x})

    with ThreadPoolExecutor(sessions) as pool:
        list(pool.map(lambda net: net.run(None, {name: x}), nets))  # warm
        start = time.perf_counter()
        list(pool.map(work, nets))
        return passes // sessions * sessions / (time.perf_counter() - start)


def command_rate(root, names, method):
    """Photos a second of matte.ensure, its opening of the network left in."""
    folder = Path(tempfile.mkdtemp())
    try:
        start = time.perf_counter()
        matte.ensure(root, names, method, matte.Matting(folder, device="cpu"))
        return len(names) / (time.perf_counter() - start)
    finally:
        shutil.rmtree(folder)


def grabcut_lines(root, names, args):
    """The ratio of the rates of our GrabCut and the usual one, and their IoU."""
    photos = {name: read_photo(root / name) for name in names[:: max(1, len(names) // 8)]}
    ours, usual, ratios = {}, {}, []
    with threadpool_limits(1, "blas"):
        grabcut.grabcut(photos[names[0]])  # its silhouettes are drawn once a size
        for name, photo in photos.items():  # in turns, photo by photo
            start = time.thread_time()
            ours[name] = grabcut.grabcut(photo)
            middle = time.thread_time()
            usual[name] = rectangle_cut(photo)
            ratios.append((time.thread_time() - middle) / (middle - start))
    loop = len(photos) / sum_seconds(rectangle_cut, photos.values())
    command = command_rate(root, names, "grabcut")
    yield f"--bg grabcut: {command:.1f} photos/s, {command / loop:.0f} times the usual loop"
    yield f"grabcut ratio, one call each: {np.median(ratios):.0f}"
    if args.masks:
        truths = {n: read_matte(path) >= 128 for n, path in find_truths(args.masks, photos).items()}
        for label, made in (("grabcut", ours), ("usual loop", usual)):
            mean = np.mean([iou(made[name] >= 128, truth) for name, truth in truths.items()])
            yield f"IoU of {label}: {mean:.3f} ({len(truths)} photos)"


def sum_seconds(function, items):
    start = time.perf_counter()
    for item in items:
        function(item)
    return time.perf_counter() - start


def rectangle_cut(photo):
    """GrabCut as it is usually called: a rectangle, the full resolution, five iterations."""
    height, width = photo.shape[:2]
    labels = np.zeros((height, width), np.uint8)
    box = (width // 20, height // 20, width * 9 // 10, height * 9 // 10)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(photo, labels, box, *models, 5, cv2.GC_INIT_WITH_RECT)
    return (labels % 2 * 255).astype(np.uint8)


def remove_rate(root, names):
    """Photos a second of rembg.remove, as it is often called: a session for each photo."""
    os.environ["U2NET_HOME"] = str(files.WEIGHTS)
    from PIL import Image
    from rembg import new_session, remove

    start = time.perf_counter()
    for name in names:  # remove() without a session makes one; its own default model is not ours
        remove(Image.open(root / name), session=new_session("u2netp"))
    return len(names) / (time.perf_counter() - start)


if __name__ == "__main__":
    run_command(main)
