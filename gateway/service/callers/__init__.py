"""Who is asking: API keys, and what each may do."""
