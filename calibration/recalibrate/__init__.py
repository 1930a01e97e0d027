"""`joulegate recalibrate`: refits the live profile from the gateways' sums in Prometheus."""
