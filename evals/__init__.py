"""Scores LitGPT checkpoints from a manifest: scorers, statistics and the report."""
