"""HTTP/1.1 to backends and meters: a pure exchange, connections, a pool for each server."""
