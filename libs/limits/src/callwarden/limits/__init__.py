"""Pure counting: sliding windows, bounded counters, rendezvous hashing."""
