"""Processes of the operating system: start, watch, end."""
