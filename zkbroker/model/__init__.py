"""The nouns that every other package shares. Imports nothing of zkbroker, and only the standard library."""
