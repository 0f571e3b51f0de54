"""The outside of admission: gRPC, the database, rating, NATS."""
