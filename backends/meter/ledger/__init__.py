"""Attributes each interval's energy to the requests that ran in it. PURE: no clock, no I/O."""
