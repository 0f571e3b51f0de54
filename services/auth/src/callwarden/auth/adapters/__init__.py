"""auth's way out: gRPC, the database, NATS."""
