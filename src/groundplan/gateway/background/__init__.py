"""Responses that are made while nobody waits for them, and found and followed by whoever asked for them."""
