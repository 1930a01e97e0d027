"""The scheduling core: plain numbers in, a decision out. No clock, no I/O, no randomness.

Read in this order: `features` (what the request needs), `cost` (what it would cost on a model),
`relative`, `fair_ols` and `hybrid` (ways to put unlike costs on one scale), `decide` (the ranking).
"""
