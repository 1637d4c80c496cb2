"""Clients that know nothing of zkbroker, against real brokers on a real ensemble. ``bin/zkbroker-interop`` runs all of
it and prints the table of clients and features; ``bin/test`` runs a short version (test_interop.py)."""
