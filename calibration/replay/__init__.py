"""`joulegate replay`: recorded requests under other weights, policies and profiles."""
