"""zkbroker: a log broker on Twisted that meets in ZooKeeper and speaks Kafka's protocol."""

__version__ = "0.1.0"
