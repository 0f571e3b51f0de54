"""Callwarden on one machine: NATS, PostgreSQL and all services as child processes that end with their parent."""
