"""Are the entries of Q and K what the support-basis theorem takes them to be? Numbers and tests.

`entry_statistics` is the door; `hypotheses` says exactly what each test tests.
"""

from subquad.empirical.entries import EntryStatistics, Verdict, entry_statistics
from subquad.empirical.sample import Estimate, LargeRows, MatrixStatistics, TailCurve

__all__ = [
    "EntryStatistics",
    "Estimate",
    "LargeRows",
    "MatrixStatistics",
    "TailCurve",
    "Verdict",
    "entry_statistics",
]
