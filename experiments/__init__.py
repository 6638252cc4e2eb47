"""Experiments: one file, one question; results are JSON with their rates and versions."""
