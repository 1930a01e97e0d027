"""Joulegate: the gateway; a request is decided, forwarded, metered and counted here."""
