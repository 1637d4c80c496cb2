"""Logs on disk in Kafka's files: see ``dirs.LogDirs`` and ``log.Log``."""
