"""Batches: ordered, checked, made line by line or by a provider, and kept. Their files are in `gateway.files`."""
