"""Input files as tables: measured rows, prompts and records, with the line of each."""
