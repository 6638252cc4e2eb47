"""The fused passes on tensor cores of Hopper GPUs: sizes, rounding, launches, plans run again."""
