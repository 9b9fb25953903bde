"""Files that applications send or that batches make: their bytes, what is known of them, and the APIs over them."""
