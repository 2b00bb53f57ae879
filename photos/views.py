"""What a model sees of a photo: the photo, or what is left without its background."""

from dataclasses import dataclass

FILLS = ("black", "mean", "blur", "random")


@dataclass(frozen=True)
class View:
    """What a model sees of a photo.

    method: "none" (the photo) or a method of matte.METHODS (its background removed).
    fill: what stands in place of the background (FILLS); "random" is a fresh background of
        another photo each time in training, and "mean" elsewhere.
    crop: crops.NAMES; "center" is the middle 5/8 x 2/3 (320 x 256 of 512 x 384), "person" the box
        of head and shoulders in the matte of `crop_method`.
    """

    method: str
    fill: str
    crop: str
    crop_method: str
    size: tuple


def views(bg, fill, crop, size):
    """The Views of an option such as --bg none+rembg: twins share the crop, so they align."""
    methods = bg.split("+")
    removed = [method for method in methods if method != "none"]
    crop_method = (removed or ["rembg_grabcut"])[0] if crop == "person" else "none"
    return [
        View(method, fill if method != "none" else "none", crop, crop_method, tuple(size))
        for method in methods
    ]


def matte_methods(view_list):
    """The methods whose mattes these views need."""
    needed = {view.method for view in view_list} | {view.crop_method for view in view_list}
    return sorted(needed - {"none"})
