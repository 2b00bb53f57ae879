"""The one way to the pixels of photos: their mattes are made first, then the store is opened."""

from dataclasses import replace

from background import matte
from common import devices
from photos import store
from photos.views import matte_methods


def open_pixels(source, views, matting, cache_dir, device):
    """(store.Pixels, {method: what its mattes were made with}) of (images folder, names below it);
    views: of build_views(); matting: a matte.Matting, whose device follows `device`.
    """
    where = f"auto:{device.index}" if device.type == "cuda" else "cpu"
    matting = replace(matting, device=where)
    made = {method: matte.ensure(*source, method, matting) for method in matte_methods(views)}
    devices.barrier()
    places = {"matte_dir": matting.matte_dir, "on_error": matting.on_error, "device": device}
    return store.load(*source, views, cache_dir, **places), made
