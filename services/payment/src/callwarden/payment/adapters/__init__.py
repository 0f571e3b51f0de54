"""payment's ways in and out: gRPC, the database."""
