"""Pure: decks compiled for longest-prefix match, peak hours, routes, quotes, and reading decks from CSV."""
