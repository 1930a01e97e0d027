"""The offline phase: measure models under designed load, fit their costs, show what it means."""
