"""The one way to the pixels of photos: their mattes are made first, then the store is opened."""

from dataclasses import replace
from pathlib import PurePosixPath

from background import matte
from common import devices
from common.errors import UserError
from photos import store
from photos.views import matte_methods


def open_pixels(sources, views, matting, cache_dir, device):
    """(store.Pixels, {method: what its mattes were made with}).

    sources: [(images folder, names below it)], one behind the other; views: of build_views();
    matting: a background.matte.Matting, whose device follows `device`. UserError if photos of two
    sources would share a matte.
    """
    where = f"auto:{device.index}" if device.type == "cuda" else "cpu"
    matting, made, methods = replace(matting, device=where), {}, matte_methods(views)
    stems = [{PurePosixPath(name).with_suffix("") for name in names} for _, names in sources]
    shared = set.intersection(*stems) if len(stems) > 1 else None
    if matting.matte_dir and methods and shared:
        raise UserError(
            f"--matte_dir {matting.matte_dir}: {' and '.join(str(root) for root, _ in sources)} "
            f"both have a photo {min(shared)}, and would share its matte; leave out --matte_dir"
        )
    for root, names in sources:
        for method in methods:
            made[method] = matte.ensure(root, names, method, matting)
    devices.barrier()
    places = {"matte_dir": matting.matte_dir, "on_error": matting.on_error, "device": device}
    return store.load(sources, views, cache_dir, **places), made
