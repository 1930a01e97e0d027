"""What the gateway costs beside talking to a backend directly; `make bench`, docs/benchmarks.md."""
