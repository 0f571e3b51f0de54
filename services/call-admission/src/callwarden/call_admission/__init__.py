"""May this account place this call: limits, holds, settlement."""
