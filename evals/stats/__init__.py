"""Estimates, intervals and tests: pure functions on arrays, no files."""
