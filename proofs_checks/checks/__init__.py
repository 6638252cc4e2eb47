"""The checks, by subject; each lists its claims in `LITERATURE` and `DERIVED`."""
