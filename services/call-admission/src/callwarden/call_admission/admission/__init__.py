"""Deciding calls: admit, extend, start, end."""
