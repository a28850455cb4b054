"""Faults while mixctl writes: `make faults` (see __main__.py)."""
