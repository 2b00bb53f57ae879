"""The insides of report.py: its page, sections and figures. Imports experiment and below."""
