"""Calculations of rating: decks compiled for longest-prefix match, routes, quotes, unbilled calls, decks from CSV."""
