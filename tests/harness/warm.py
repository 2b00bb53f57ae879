"""What a forkserver imports once: all packages, so that what is forked from it starts at once."""

import gc

from harness import engine

engine.import_packages()
gc.freeze()  # else each process that is forked would copy what its garbage collection touches
