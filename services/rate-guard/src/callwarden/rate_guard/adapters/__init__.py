"""rate-guard's way out: gRPC and NATS."""
