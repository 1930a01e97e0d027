"""What is kept and exported of each request: metrics, recent requests, the decision log."""

SHARED_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder in which the workers of one gateway share their metrics; prometheus_client's."""

WORKERS = "JOULEGATE_WORKERS"
"""Names how many workers share the servers' watts; `joulegate serve` sets it for its own."""
