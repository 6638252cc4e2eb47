"""Queries and keys divided by magnitude: two parts (support basis) or many buckets."""
