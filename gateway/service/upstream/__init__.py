"""The side towards the backends: attempts and retries, metering, and the relay of the response."""
