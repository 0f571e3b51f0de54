"""The callwarden command: run it, configure it, ask it why."""
