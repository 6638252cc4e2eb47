"""Rows divided over several devices or processes: a Fleet, and the passes over rows in shards."""
