"""One machine: NATS, PostgreSQL and all services as child processes."""
