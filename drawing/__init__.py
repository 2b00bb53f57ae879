"""The insides of demo.py: how people are drawn. Imports common, labels and photos."""
