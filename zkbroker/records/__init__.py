"""Record batches of format version 2: headers, codecs, and the records inside where a topic needs them."""
