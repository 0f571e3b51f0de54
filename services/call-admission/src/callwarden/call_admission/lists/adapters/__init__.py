"""The outside of number lists: gRPC, the database, NATS."""
