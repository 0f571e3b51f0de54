"""The calculation: what is decided and charged, from values to values."""
