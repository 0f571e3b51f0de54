"""The outside: gRPC, the database, rating, NATS."""
