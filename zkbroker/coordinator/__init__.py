"""PURE: consumer groups and transactions, and the codecs of their records. Empty until its issue is taken."""
