"""What a finished request leaves: usage, joules, metrics, records and the sums for a refit."""
