"""Top-ups, exactly once."""
