"""Feature maps: ranks, counts, and monomials chosen one by one."""
