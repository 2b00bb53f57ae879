"""What a model sees of a photo: the photo, or what is left without its background."""

from dataclasses import dataclass

METHODS = ("grabcut", "rembg", "rembg_grabcut")  # of background removal
FILLS = ("black", "mean", "blur", "random")  # in place of the background
CROPS = ("none", "center", "person")


@dataclass(frozen=True)
class View:
    """What a model sees of a photo.

    method: "none" (the photo) or one of METHODS (its background removed).
    fill: what stands in place of the background (FILLS); "random" is a fresh background of
        another photo each time in training, and "mean" elsewhere.
    crop: one of CROPS; "center" is the middle 5/8 x 2/3 (320 x 256 of 512 x 384), "person" the box
        of head and shoulders in the matte of `crop_method`.
    """

    method: str
    fill: str
    crop: str
    crop_method: str
    size: tuple


def build_views(bg, fill, crop, size):
    """The Views of an option such as --bg none+rembg; all share one crop, so they align.

    The one place where options, of a run or of a saved model, become Views.
    """
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
