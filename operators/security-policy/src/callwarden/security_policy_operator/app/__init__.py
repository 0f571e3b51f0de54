"""The use cases: policies, bans, trunks and price lists, each reconciled in rounds of its own, over ports."""
