"""What tests share: real NATS and PostgreSQL, a clock that is turned by hand, waiting, skipping, contract suites."""
