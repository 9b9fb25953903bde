"""Editions of the search index: made beside the one that serves, compared, switched to, gone back to, removed."""
