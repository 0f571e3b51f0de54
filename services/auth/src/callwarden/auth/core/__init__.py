"""What auth calculates: digests compared, secrets sealed, passwords judged, trunks found. Values in, values out."""
