"""Polynomial and majorant chosen together once the State is known: a bound for every row."""
