"""Errors, files, flags, processes and devices; knows nothing of photos. All may import it."""
