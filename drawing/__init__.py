"""The insides of demo.py: how people and their photos are drawn. Imports common and labels."""
