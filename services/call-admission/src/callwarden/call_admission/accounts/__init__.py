"""Accounts and trunks, for the people who administer them."""
