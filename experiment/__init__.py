"""The run folder: written, read, predicted with, scored. Imports options, dataset and below."""
