"""The use cases of records."""
