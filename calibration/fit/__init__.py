"""`joulegate fit`: regressions from measured rows, their diagnostics, and the profile file."""
