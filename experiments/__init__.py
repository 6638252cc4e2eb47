"""Experiments: one file of `questions/`, one question; ``python -m experiments NAME``.

`questions/` asks, `harness/` makes the data, runs, measures and keeps the records, `report/` makes
tables, findings and the page of them. Imports inside are relative: installed, all this is
`subquad.experiments`.
"""
