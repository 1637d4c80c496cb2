"""Requests that no client would send, against a listener. ``messages`` builds right ones of every API and version from
kio's schemas, ``mutations`` makes wrong ones of them, ``siege`` sends them to a broker on many connections at once and
judges. ``python -m tests.fuzz`` goes on for as long as it is told to; tests/unit/test_kafka_fuzz.py does the same in
memory, tests/integration/test_hostile_clients.py for some seconds."""
