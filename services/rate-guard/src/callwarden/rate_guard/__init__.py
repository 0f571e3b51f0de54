"""Counts messages and failures per address, and bans."""
