"""Delivers answers to the client: streamed, as bytes, or as a whole."""
