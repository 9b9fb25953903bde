"""Editions of the search index: built beside the serving one, compared, switched to, rolled back, removed."""
