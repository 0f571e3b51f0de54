"""What an account may be, from values to values."""
