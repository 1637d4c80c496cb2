"""PURE: what a leader and a follower of one partition decide. Numbers in, effects out; no payload, no clock, no I/O."""
