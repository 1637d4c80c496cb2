"""Kafka's znodes and the session with the ensemble. ``session.py`` is the only importer of kazoo."""
