"""A pytest plugin: real NATS and PostgreSQL, whole services, fake clocks, SIP phones."""
