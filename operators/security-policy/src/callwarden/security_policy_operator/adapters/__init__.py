"""The cluster and the bus."""
