"""How time and memory grow with the number of photos: benchmark.py --growth."""

from bench import command
from measures import PHOTOS, inference_command

SIZES = [1000, 5000, 20000]
HEAD = ("step", "photos", "seconds", "ms a photo", "MB resident", "of it MB of its own")
STORE = """
import sys
from dataset import find_images
from photos import store, views
root, names = find_images(sys.argv[1])
size = [int(word) for word in sys.argv[3:]]
store.load(root, names, views.build_views("none", "mean", "none", size), sys.argv[2])
"""
COMPARISON = """
import sys, numpy
from experiment.comparison import compare
persons = numpy.repeat(numpy.arange(int(sys.argv[1])), 7)
labels, a, b = numpy.random.default_rng(0).integers(0, 18, (3, len(persons)))
compare(labels, persons, a, b)
"""


def grown(bench, sizes):
    """[(step, photos, seconds, MB resident, MB of its own)] of each step at each of the sizes.

    Each is a process from its start to its end: the store from the photos' files, an epoch and
    inference from the store, a comparison of two runs. The pages of files, the store's among them,
    are resident as long as nobody else needs the memory.
    """
    rows = []
    for size in sizes:
        people = round(size / PHOTOS)
        folder, cache = bench.photos(people)[0], bench.folder / "cache"
        for step, words in (
            ("store", ["-c", STORE, folder, cache, *bench.args.resize]),
            ("epoch", ["train.py", *bench.flags(people)]),
            ("inference", inference_command(bench, people)),
            ("comparison", ["-c", COMPARISON, people]),
        ):
            rows.append((step, PHOTOS * people, *command(*words)))
    return sorted(rows, key=lambda row: [row[0] for row in rows].index(row[0]))


def lines(rows):
    """The rows as texts below HEAD."""
    return [
        [step, f"{photos:,}", f"{seconds:.1f}", f"{1000 * seconds / photos:.2f}"]
        + [f"{size:.0f}" for size in sizes]
        for step, photos, seconds, *sizes in rows
    ]


def plot(rows, path):
    """Draws the rows: seconds on the left, memory on the right, by thousands of photos."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for step in dict.fromkeys(row[0] for row in rows):
        _, photos, seconds, resident, own = zip(*(r for r in rows if r[0] == step), strict=True)
        photos = [count / 1000 for count in photos]
        [drawn] = axes[0].plot(photos, seconds, "o-", label=step)
        axes[1].plot(photos, resident, "o-", color=drawn.get_color(), label=step)
        axes[1].plot(photos, own, "o:", color=drawn.get_color())
    for axis, title in zip(axes, ("seconds", "MB resident (dotted: its own)"), strict=True):
        axis.set(title=title, xlabel="thousand photos", ylim=(0, None))
        axis.legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
