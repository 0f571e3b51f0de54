"""What rate-guard calculates: counts, limits, bans, duplicates. Values in, values out, time an argument."""
