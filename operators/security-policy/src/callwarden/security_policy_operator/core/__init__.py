"""What is decided, without a cluster or a bus."""
