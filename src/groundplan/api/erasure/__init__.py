"""Erasure of a person everywhere by one request, and legal holds, which prevent it; `identity` keeps subject keys."""
