"""Who may ask the service: API keys, tokens, and what each may do."""
