"""Real processes for tests: a ZooKeeper ensemble, brokers. Everything that is started here is also stopped."""
