"""Hundreds of bad inputs and faults, each through the real command: see table.py."""

import common.errors  # noqa: F401  sets the limits of OpenCV, before others import it
