"""Least squares, intervals and cross-validation, with no knowledge of files or commands."""
