"""Joulegate: the offline phase; measure models, fit their costs, show what it means."""
