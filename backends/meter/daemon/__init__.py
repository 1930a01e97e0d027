"""The process beside vLLM: samples the counters, serves the gateways, runs the ledgers."""
