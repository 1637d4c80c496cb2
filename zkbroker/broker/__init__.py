"""The composition root of a broker process: what runs the decisions of the pure packages on real I/O."""
