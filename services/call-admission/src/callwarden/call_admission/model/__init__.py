"""The ground that every capability stands on: accounts, calls, what is counted, days, numbers, lists, policy."""
