"""What every process needs to run: runtime, settings, logs, telemetry, RPC, bus, SQL.

In: nothing that knows what a call, an account or a policy is. Domain words live in `callwarden.kernel`,
`callwarden.sip` and `callwarden.limits`. README.md next to `src/` shows a complete service on one page.
"""
