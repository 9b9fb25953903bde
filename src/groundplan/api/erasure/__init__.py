"""Erasing a person everywhere by one request, and legal holds, which stop that; the keys of people are `identity`'s."""
