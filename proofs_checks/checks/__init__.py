"""The checks, by subject; each file lists its claims in `CLAIMS`."""
