"""The room that makes the library: measured figures in, shipped coefficients out."""
