"""Polynomials near exp: distances, degrees, provers, as in `subquad.exp_poly`."""
