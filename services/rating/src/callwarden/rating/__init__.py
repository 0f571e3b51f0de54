"""What a call costs and where it goes."""
