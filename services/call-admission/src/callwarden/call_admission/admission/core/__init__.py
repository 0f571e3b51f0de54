"""What is decided about a call, from values to values."""
