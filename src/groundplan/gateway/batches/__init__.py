"""Files and batches: ordered, checked, made line by line, and kept."""
