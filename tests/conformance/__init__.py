"""vLLM's own tests against the gateway; nothing of theirs is kept here."""
