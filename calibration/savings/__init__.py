"""Whether routing saves energy: a switchback read out of Prometheus."""
