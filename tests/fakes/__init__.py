"""Stand-ins for what is passed in: deterministic, in memory."""
