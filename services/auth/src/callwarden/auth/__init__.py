"""auth: who is calling. See README.md."""
