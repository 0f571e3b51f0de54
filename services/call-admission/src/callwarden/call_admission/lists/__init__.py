"""Lists of numbers: fixed ones, and numbers that are listed for a time."""
