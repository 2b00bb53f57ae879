"""What a model sees of a photo: the photo, or what is left without its background."""

from dataclasses import dataclass

METHODS = ("grabcut", "rembg", "rembg_grabcut")  # of background removal
FILLS = ("black", "mean", "blur", "random")  # in place of the background
CROPS = ("none", "center", "face", "person")


@dataclass(frozen=True)
class View:
    """What a model sees of a photo."""

    method: str  # "none" (the photo) or one of METHODS (its background removed)
    fill: str  # one of FILLS; "random" is another photo's each time in training, "mean" elsewhere
    crop: str  # one of CROPS; see photos/crops.py
    crop_method: str  # whose matte has the person to crop to
    size: tuple  # (height, width)


def build_views(bg, fill, crop, size):
    """The Views of an option such as --bg none+rembg; all share one crop, so they align."""
    methods = bg.split("+")
    removed = [method for method in methods if method != "none"]
    crop_method = (removed or ["rembg_grabcut"])[0] if crop == "person" else "none"
    return tuple(
        View(method, fill if method != "none" else "none", crop, crop_method, tuple(size))
        for method in methods
    )


def matte_methods(views):
    """The methods whose mattes these views need."""
    needed = {view.method for view in views} | {view.crop_method for view in views}
    return sorted(needed - {"none"})
