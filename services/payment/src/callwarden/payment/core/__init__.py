"""Pure: what a top-up is, and what a payment that was made before says about one that comes again."""
