"""The edge as a calculation: datagrams, answers and time in, effects out. No socket, clock, chance or log."""
