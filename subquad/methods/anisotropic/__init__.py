"""Monomials chosen one by one after a change of basis, for steep spectra."""
