"""Kafka's znodes: for each root one file with path builders, encode, decode and a JSON example.

What is in a znode is foreign input, since people and tools write there: a decode raises ZnodeError and nothing else.
"""

from zkbroker.zookeeper.znodes.codec import ZnodeError

__all__ = ["ZnodeError"]
