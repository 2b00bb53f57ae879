"""Hundreds of bad inputs and faults, each through the real command: see cases.py for the table."""
