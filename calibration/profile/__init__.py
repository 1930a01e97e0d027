"""`joulegate profile`: measures a server's seconds and joules per request, a row each."""
