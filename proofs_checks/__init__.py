"""Claims of the literature and of subquad, each decided by machine, the false ones refuted.

It looks down on `subquad` and is never imported by it, but for the command line, which reaches
`registry` by name when asked to, and `Certificate.explain`, which prints statements.
"""
