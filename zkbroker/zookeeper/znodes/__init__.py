"""Path, encoding and decoding of every znode, a file per root, each with an example of its JSON."""
