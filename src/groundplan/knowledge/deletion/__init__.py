"""Deletion of documents: at once from retrieval, then from the disk, with a receipt, and again after a restore."""
