"""Documents that go: at once from retrieval, then from the disk, with a receipt, and after a restore once more."""
