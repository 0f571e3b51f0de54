"""Reading lists and scoring numbers, from values to values."""
