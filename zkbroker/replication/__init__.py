"""The line protocol between brokers; its specification is PROTOCOL.md beside this file."""
