"""Lemmas as functions: each returns a proved upper bound and names its claim."""
