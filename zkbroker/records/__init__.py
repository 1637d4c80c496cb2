"""Record batches (magic 2): read and patch the header, check the CRC, build batches, walk records where a topic needs it."""
