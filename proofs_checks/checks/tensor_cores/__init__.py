"""The fused passes by hand: a model of tensor cores, and its accounting."""
