"""Joulegate: vLLM servers as the gateway sees them; reaching, choosing and watching them."""
