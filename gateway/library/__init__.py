"""The library of real GPUs: costs fitted to published measurements, as profile entries.

An entry's decode costs (b2, b4) are fitted to measured joules and seconds per token at several
batches; its prompt costs (b1) are arithmetic and its idle watts assumed, and the provenance that
goes into a profile says so coefficient by coefficient. The measurements themselves are not here.
"""
