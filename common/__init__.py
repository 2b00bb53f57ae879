"""Errors, files, flags, processes and devices; knows nothing of photos. All may import it."""

import os

# OpenCV reads it when it is imported. Its own limit of four times as many pixels lets a damaged
# header of a photo take 4 GB.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))
