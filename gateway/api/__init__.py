"""HTTP in and out: thin handlers over `gateway.service`."""
