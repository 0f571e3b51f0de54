"""The operator: SecurityPolicy resources become the one bundle that every service enforces."""
