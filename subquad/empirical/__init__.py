"""What data are like: entries against the theorem's premise, and heads as sums of polynomials.

`entries.entry_statistics` is one door, `hypotheses` says exactly what each of its tests tests;
`bridge.softmax_as_polynomials` is the other. The first brings scipy.stats, so nothing is imported
here.
"""
