"""The use cases of number lists."""
