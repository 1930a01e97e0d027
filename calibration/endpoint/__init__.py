"""A server under measurement: its requests, streams and retries."""
