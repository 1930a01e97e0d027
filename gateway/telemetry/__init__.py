"""What is kept and exported of each request: metrics, recent requests, the decision log."""
