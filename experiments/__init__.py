"""Experiments: one file, one question; ``python -m experiments NAME``, results as JSON."""
