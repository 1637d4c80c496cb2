"""One partition's log in Kafka's files: segments, indexes, checkpoints, recovery, retention."""
