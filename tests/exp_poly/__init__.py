"""Tests of `subquad.exp_poly`."""
