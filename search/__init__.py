"""The insides of tune.py: its space, trials and study. Imports experiment and below."""
