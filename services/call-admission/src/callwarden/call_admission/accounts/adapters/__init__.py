"""The outside of accounts: gRPC, the database, NATS."""
