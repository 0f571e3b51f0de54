"""rate-guard: who sends too much, or guesses. See README.md."""
