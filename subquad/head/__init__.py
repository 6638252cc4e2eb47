"""One head and what is known of it: its rows, centres, norms, sample; and the checks of arrays."""
