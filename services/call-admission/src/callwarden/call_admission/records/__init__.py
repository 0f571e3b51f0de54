"""Calls that are over: records, ledger, corrections, retention."""
