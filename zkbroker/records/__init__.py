"""Record batches, format version 2: the header that every path checks, codecs, and the records inside where a topic needs them."""
