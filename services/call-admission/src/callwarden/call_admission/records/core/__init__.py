"""Records and corrections, from values to values."""
