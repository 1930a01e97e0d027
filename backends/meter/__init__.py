"""The energy of each request: counters read, joules attributed, observations sent to gateways."""
