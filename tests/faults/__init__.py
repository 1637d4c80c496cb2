"""Real brokers, a real ensemble, real clients, real faults; what the clients saw is recorded and checked afterwards.

``bin/zkbroker-torture --help`` runs as much of it as you have time for; ``test_*.py`` is the short version.
"""
