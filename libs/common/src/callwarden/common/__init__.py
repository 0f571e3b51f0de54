"""What every process needs to run: runtime, logs, telemetry, RPC, bus, SQL."""
